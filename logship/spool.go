package logship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The bounds of one spool: what the slowest sink has not acknowledged, and what stays on disk of it.
const (
	spoolSegment = 8 << 20
	spoolKeep    = 8
	spoolBehind  = (spoolKeep - 2) * spoolSegment
)

// spool is a log file of our own for a source that has no file we can read: the journal, or a runtime's API. From here
// on it is a log like any other: each sink has its place in it, it is rotated, and kept until all have it.
//
// Its last line says how far the source was read, so a line stands in it once, whatever happens to us. When a kill tore
// that line, the source gives it again, and what is missing is added: bytes that a sink may have seen never change.
type spool struct {
	path string
	file *os.File
	size int64
	torn []byte       // the beginning of a line that is not whole
	lag  func() int64 // of the slowest sink, in bytes
}

// openSpool opens or makes the file.
func openSpool(path string, lag func() int64) (*spool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &spool{path: path, lag: lag}
	if err := s.open(); err != nil {
		return nil, err
	}
	all, err := s.read(s.path, 1<<20)
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.torn = bytes.Clone(all[bytes.LastIndexByte(all, '\n')+1:])
	return s, nil
}

func (s *spool) open() error {
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open spool: %w", err), f.Close())
	}
	s.file, s.size = f, fi.Size()
	return nil
}

// read gives the end of a segment.
func (s *spool) read(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	b := make([]byte, min(n, fi.Size()))
	if _, err := f.ReadAt(b, fi.Size()-int64(len(b))); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	return b, nil
}

// stampLayout has the same width at every moment.
const stampLayout = "2006-01-02T15:04:05.000000000Z"

// stamp gives the time for a line whose source has none: now, or what is left of the time of the line that was torn, so
// that the line is the same when the source gives it again.
func (s *spool) stamp() string {
	now := time.Now().UTC().Format(stampLayout)
	n := min(len(s.torn), len(now))
	return string(s.torn[:n]) + now[n:]
}

// last gives whole lines from the end of the spool, the newest last: all of the current segment and, when that is
// short, of the one before.
func (s *spool) last() ([][]byte, error) {
	now, err := s.read(s.path, 2*spoolSegment)
	if err != nil {
		return nil, err
	}
	before := []byte(nil)
	if len(now) < spoolSegment/2 {
		if before, err = s.read(s.path+".1", 2*spoolSegment); err != nil {
			return nil, err
		}
	}
	now = now[:len(now)-len(s.torn)]
	lines := bytes.Split(append(before, now...), []byte("\n"))
	return lines[:len(lines)-1], nil // what follows the last newline is nothing
}

// write appends whole lines. It waits while the sinks are too far behind.
func (s *spool) write(ctx context.Context, text []byte) error {
	for s.lag() > spoolBehind {
		if !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	if len(s.torn) > 0 {
		if rest, same := bytes.CutPrefix(text, s.torn); same {
			text = rest
		} else { // the source has forgotten that line
			text = append([]byte("\n"), text...)
		}
	}
	for len(text) > 0 {
		n, err := s.file.Write(text)
		s.size += int64(n)
		s.follow(text[:n])
		if text = text[n:]; err == nil {
			continue
		}
		if !sleep(ctx, time.Second) { // the disk is full: what was begun is finished when there is room
			return fmt.Errorf("write spool: %w", err)
		}
	}
	if s.size >= spoolSegment {
		return s.rotate()
	}
	return nil
}

// follow keeps what was written of an unfinished line.
func (s *spool) follow(written []byte) {
	if i := bytes.LastIndexByte(written, '\n'); i >= 0 {
		s.torn, written = s.torn[:0], written[i+1:]
	}
	s.torn = append(s.torn, written...)
}

// rotate begins a new segment; the oldest is removed, which every sink has by now.
func (s *spool) rotate() error {
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("rotate spool: %w", err)
	}
	for i := spoolKeep - 1; i >= 0; i-- {
		from := s.path
		if i > 0 {
			from = fmt.Sprintf("%s.%d", s.path, i)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", s.path, i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate spool: %w", err)
		}
	}
	return s.open()
}

func (s *spool) close() error { return s.file.Close() }

// appendCRI adds one line in CRI's frame. tag follows the P or F.
func appendCRI(b []byte, at time.Time, stderr, partial bool, tag string, text []byte) []byte {
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	if stderr {
		b = append(b, " stderr "...)
	} else {
		b = append(b, " stdout "...)
	}
	if partial {
		b = append(b, 'P')
	} else {
		b = append(b, 'F')
	}
	if tag != "" {
		b = append(append(b, ':'), tag...)
	}
	return append(append(append(b, ' '), text...), '\n')
}
