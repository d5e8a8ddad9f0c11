package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const burst = 2000 // lines on each stream

// numbered finds our lines in whatever frame a sink gives them: "demo STREAM NUMBER".
var numbered = regexp.MustCompile(`\bdemo ([a-z0-9/]+) (\d+)\b`)

// counts is how many lines were written on each stream, numbered from 1.
type counts map[string]int

func (c counts) total() (n int) {
	for _, v := range c {
		n += v
	}
	return n
}

// logs lets every container write numbered lines to its stdout and to a file inside it, as fast as it can, and looks
// for each of them in rsyslog's file and in the file sink.
func (d *Demo) logs(ctx context.Context) (string, error) {
	err := d.each(func(n *Node) error {
		for _, c := range n.containers {
			for stream, file := range map[string]string{"out": "/proc/1/fd/1", "file": "/var/log/app.log"} {
				write := fmt.Sprintf("seq 1 %d | sed 's|^|demo %s/%s/burst |' >> %s", burst, c, stream, file)
				if _, err := c.exec(ctx, "sh", "-ec", write); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	began := time.Now()
	err = d.each(func(n *Node) error {
		_, err := n.arrived(ctx, n.burstCounts(), exactlyOnce, "rsyslog", "copy")
		return err
	})
	if err != nil {
		return "", err
	}
	total := 0
	for _, n := range d.nodes {
		total += n.burstCounts().total()
	}
	return fmt.Sprintf("%d lines from stdout and from /var/log/app.log in the containers: each once and in order\nat rsyslog (RFC 5424 over TCP) and in the file sink, within %.1f s", total, time.Since(began).Seconds()), nil
}

func (n *Node) burstCounts() counts {
	want := counts{}
	for _, c := range n.containers {
		want[c.String()+"/out/burst"] = burst
		want[c.String()+"/file/burst"] = burst
	}
	return want
}

// exactlyOnce is the number of repeated lines that a stream may have when nothing was killed, and at an acknowledged
// sink always.
const exactlyOnce = 0

// arrived waits until each sink has as many lines as want says, and then checks that they are the right ones: each
// once but for the repeats that are allowed in a stream, in the order of its stream. It gives the repeats that there were.
func (n *Node) arrived(ctx context.Context, want counts, repeats int, sinks ...string) (repeated int, err error) {
	deadline := time.Now().Add(20 * time.Second)
	for _, sink := range sinks {
		path := n.sinkFile(sink)
		for {
			got, err := read(path)
			if err != nil {
				return repeated, err
			}
			if got.complete(want) {
				twice, err := got.compare(want, repeats)
				if err != nil {
					return repeated, fmt.Errorf("%s: %w", sink, err)
				}
				repeated += twice
				break
			}
			if time.Now().After(deadline) {
				_, err := got.compare(want, repeats)
				return repeated, fmt.Errorf("%s: after 20 s: %w", sink, err)
			}
			select {
			case <-ctx.Done():
				return repeated, ctx.Err()
			case <-time.After(50 * time.Millisecond): // files have no event for "this was the last line"
			}
		}
	}
	return repeated, nil
}

func (n *Node) sinkFile(sink string) string {
	if sink == "rsyslog" {
		return n.rsyslog.Messages
	}
	return n.Path(sinkPath(sink))
}

// received is the numbers of each stream in the order of arrival.
type received map[string][]int

func read(path string) (received, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return received{}, nil // nothing has come yet
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := received{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := numbered.FindStringSubmatch(lines.Text()); m != nil {
			number, err := strconv.Atoi(m[2])
			if err != nil {
				return nil, err
			}
			r[m[1]] = append(r[m[1]], number)
		}
	}
	return r, lines.Err()
}

// complete tells whether the last line of each stream has come.
func (r received) complete(want counts) bool {
	for stream, n := range want {
		if got := r[stream]; len(got) < n || got[len(got)-1] != n {
			return false
		}
	}
	return true
}

// compare names the first stream whose lines are not exactly 1 to n in order, with the kind of difference. Of each
// stream so many lines may have come a second time; it gives how many did in all.
func (r received) compare(want counts, repeats int) (repeatedInAll int, err error) {
	for _, stream := range slices.Sorted(maps.Keys(want)) {
		n, got := want[stream], r[stream]
		seen := map[int]int{}
		var first []int // without the repeats
		for _, number := range got {
			if seen[number]++; seen[number] == 1 {
				first = append(first, number)
			}
		}
		missing, repeated := 0, 0
		var which []string
		for i := 1; i <= n; i++ {
			switch k := seen[i]; {
			case k == 0:
				missing++
			case k > 1:
				repeated += k - 1
			default:
				continue
			}
			if len(which) < 5 {
				which = append(which, fmt.Sprint(i))
			}
		}
		repeatedInAll += repeated
		switch {
		case missing > 0 || repeated > repeats:
			return 0, fmt.Errorf("%s: of %d lines %d are missing and %d came twice (%s, ...)", stream, n, missing, repeated, strings.Join(which, ", "))
		case len(first) != n:
			return 0, fmt.Errorf("%s: %d lines came, %d were written", stream, len(first), n)
		case !slices.IsSorted(first):
			return 0, fmt.Errorf("%s: the lines came in another order", stream)
		}
	}
	return repeatedInAll, nil
}
