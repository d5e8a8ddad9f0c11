package main

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
)

var words = []string{"accepted", "after", "backend", "cache", "cart", "checkout", "client", "connection", "customer", "database", "delivered",
	"expired", "fetched", "from", "handler", "index", "invoice", "item", "loaded", "message", "missing", "order", "payment", "pool", "queue",
	"received", "refreshed", "request", "response", "retry", "session", "shipped", "slow", "stored", "timeout", "token", "updated", "upstream", "user", "with"}

// text is one line of 200 bytes as a service would write it: it ends in its number and the checksum of what is before.
func text(b []byte, r *rand.Rand, n int) []byte {
	from := len(b)
	b = fmt.Appendf(b, `level=%s method=%s path=/api/v1/%s/%d status=%d took=%dus trace=%016x msg="`, []string{"info", "info", "info", "warn", "debug"}[r.IntN(5)],
		[]string{"GET", "GET", "POST", "PUT"}[r.IntN(4)], words[r.IntN(len(words))], r.IntN(100_000), []int{200, 200, 200, 201, 304, 404, 500}[r.IntN(7)], r.IntN(1_000_000), r.Uint64())
	const tail = len(`" n=0000000000 c=00000000`)
	for len(b)-from < 200-tail {
		b = append(append(b, words[r.IntN(len(words))]...), ' ')
	}
	b = fmt.Appendf(b[:from+200-tail], `" n=%010d c=`, n)
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b[from:len(b)-3]))
}

// write makes a file of n lines in the form that frame gives each text.
func write(path string, seed uint64, n int, frame func(b, text []byte, n int) []byte) (size int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(seed, 0))
	var line, raw []byte
	for i := range n {
		line = text(line[:0], r, i)
		raw = frame(raw[:0], line, i)
		size += int64(len(raw))
		if _, err := w.Write(raw); err != nil {
			return 0, err
		}
	}
	return size, w.Flush()
}

func criFrame(b, text []byte, n int) []byte {
	return append(append(fmt.Appendf(b, "2026-11-21T09:%02d:%02d.%09dZ stdout F ", n/60_000%60, n/1000%60, n%1000*1_000_000+n%999), text...), '\n')
}

func dockerFrame(b, text []byte, n int) []byte {
	b = append(b, `{"log":`...)
	b = strconv.AppendQuote(b, string(text)+"\n")
	return fmt.Appendf(b, `,"stream":"stdout","time":"2026-11-21T09:%02d:%02d.%09dZ"}`+"\n", n/60_000%60, n/1000%60, n%1000*1_000_000+n%999)
}

// tally checks each line that arrives and keeps a bitmap of the numbers.
type tally struct {
	mu           sync.Mutex
	seen         []bool
	have         int
	doubled, bad int
	done         chan struct{}
}

func newTally(n int) *tally { return &tally{seen: make([]bool, n), done: make(chan struct{})} }

// add checks one line; only its end from "level=" on is looked at.
func (t *tally) add(line []byte) {
	n, ok := number(line)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !ok || n >= len(t.seen):
		t.bad++
	case t.seen[n]:
		t.doubled++
	default:
		t.seen[n] = true
		if t.have++; t.have == len(t.seen) {
			close(t.done)
		}
	}
}

func number(line []byte) (int, bool) {
	from := bytes.Index(line, []byte("level="))
	at := bytes.LastIndex(line, []byte(" n="))
	if from < 0 || at < from || len(line) < at+3+10+3+8 {
		return 0, false
	}
	n, err := strconv.Atoi(string(line[at+3 : at+13]))
	sum, err2 := strconv.ParseUint(string(line[at+16:at+24]), 16, 32)
	return n, err == nil && err2 == nil && uint32(sum) == crc32.ChecksumIEEE(line[from:at+13])
}

func (t *tally) lost() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.seen) - t.have
}
