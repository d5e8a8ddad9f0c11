package logship

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// engine reads one container's output through the Docker API, for log drivers whose files are not lines of text
// (local, and all others as far as the daemon keeps a copy to read).
type engine struct {
	socket string
	id     string
}

// overlap is how far back of the newest time the API is asked again after a break. Lines of stdout and stderr are
// written in an order that may differ from that of their times by what two goroutines of the daemon differ.
const overlap = 2 * time.Second

// pump copies what follows the spool's last line until ctx ends, or the container's output does.
func (e *engine) pump(ctx context.Context, sp *spool) error {
	tty, err := e.tty(ctx)
	if err != nil {
		return err
	}
	seen, since, err := spooled(sp)
	if err != nil {
		return err
	}
	q := url.Values{"follow": {"1"}, "stdout": {"1"}, "stderr": {"1"}, "timestamps": {"1"}}
	if !since.IsZero() {
		q.Set("since", fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()))
	}
	resp, err := e.get(ctx, "/containers/"+url.PathEscape(e.id)+"/logs?"+q.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	c := &engineCopy{out: sp, seen: seen, in: bufio.NewReaderSize(resp.Body, 64<<10)}
	if tty {
		err = c.lines(ctx)
	} else {
		err = c.frames(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (e *engine) get(ctx context.Context, path string) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask runtime for a log: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask runtime for a log: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	_ = resp.Body.Close()
	err = fmt.Errorf("ask runtime for a log: %s: %s", resp.Status, bytes.TrimSpace(text))
	if resp.StatusCode == http.StatusNotFound {
		err = errors.Join(errNoContainer, err)
	}
	return nil, err
}

// errNoContainer is the end of a source: there is nothing left to read.
var errNoContainer = errors.New("container does not exist any more")

// tty tells whether the output is one raw stream instead of frames.
func (e *engine) tty(ctx context.Context) (bool, error) {
	resp, err := e.get(ctx, "/containers/"+url.PathEscape(e.id)+"/json")
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var c struct{ Config struct{ Tty bool } }
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		return false, fmt.Errorf("read container: %w", err)
	}
	return c.Config.Tty, nil
}

// spooled gives the lines of the last overlap, in their order, and from when on the API is to be asked.
func spooled(sp *spool) (seen []uint64, since time.Time, err error) {
	lines, err := sp.last()
	if err != nil {
		return nil, since, err
	}
	var newest time.Time
	times := make([]time.Time, len(lines))
	for i, l := range lines {
		stamp, _, _ := bytes.Cut(l, []byte(" "))
		if times[i], err = time.Parse(time.RFC3339Nano, string(stamp)); err == nil && times[i].After(newest) {
			newest = times[i]
		}
	}
	if newest.IsZero() {
		return nil, since, nil
	}
	since = newest.Add(-overlap)
	for i, l := range lines {
		if !times[i].Before(since) {
			seen = append(seen, digest(l))
		}
	}
	return seen, since, nil
}

func digest(line []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(line)
	return h.Sum64()
}

// engineCopy brings one answer of the API into the spool.
type engineCopy struct {
	in   *bufio.Reader
	out  *spool
	seen []uint64 // what the spool has and the API gives again, in the same order
	text []byte
}

// frames reads 8 bytes of header, [stream, 0, 0, 0, size], and one message each.
func (c *engineCopy) frames(ctx context.Context) error {
	var head [8]byte
	var body []byte
	for {
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return c.end(ctx, err)
		}
		n := int(binary.BigEndian.Uint32(head[4:]))
		if n > 4<<20 {
			return fmt.Errorf("read runtime's log: a message of %d bytes", n)
		}
		if cap(body) < n {
			body = make([]byte, n)
		}
		if _, err := io.ReadFull(c.in, body[:n]); err != nil {
			return c.end(ctx, err)
		}
		if err := c.message(ctx, body[:n], head[0] == 2); err != nil {
			return err
		}
	}
}

// lines reads the raw stream of a terminal.
func (c *engineCopy) lines(ctx context.Context) error {
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil { // a line that is not whole comes again
			return c.end(ctx, err)
		}
		if err := c.message(ctx, append(bytes.TrimRight(line, "\r\n"), '\n'), false); err != nil {
			return err
		}
	}
}

// enginePiece is where the daemon cuts long lines (daemon/logger/copier.go). The last piece of one has no newline either
// when the driver is local (Docker 20.10), so only a full one goes on in the next message.
const enginePiece = 16 << 10

// message takes "TIME TEXT\n", or without the newline a piece of a long line.
func (c *engineCopy) message(ctx context.Context, m []byte, stderr bool) error {
	stamp, text, _ := bytes.Cut(m, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return fmt.Errorf("read runtime's log: %w", err)
	}
	text, whole := bytes.CutSuffix(text, []byte("\n"))
	from := len(c.text)
	c.text = appendCRI(c.text, at, stderr, !whole && len(text) >= enginePiece, "", bytes.ReplaceAll(text, []byte("\n"), []byte(" ")))
	if c.again(c.text[from : len(c.text)-1]) {
		c.text = c.text[:from]
	}
	if c.in.Buffered() > 0 && len(c.text) < 64<<10 {
		return nil
	}
	return c.flush(ctx)
}

// again tells whether the spool has the line. The API may have forgotten lines before it, but gives them in order.
func (c *engineCopy) again(line []byte) bool {
	d := digest(line)
	for i, s := range c.seen {
		if s == d {
			c.seen = c.seen[i+1:]
			return true
		}
	}
	return false
}

func (c *engineCopy) flush(ctx context.Context) error {
	if len(c.text) == 0 {
		return nil
	}
	err := c.out.write(ctx, c.text)
	c.text = c.text[:0]
	return err
}

func (c *engineCopy) end(ctx context.Context, err error) error {
	if flushed := c.flush(ctx); flushed != nil {
		return flushed
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "closed") {
		return nil
	}
	return fmt.Errorf("read runtime's log: %w", err)
}
