// Package file is the sink that appends to a file on this host: one text line a record, acknowledged after fsync.
//
// It owns the file while the agent runs. Its mark is the file's identity and length, saved together with the positions
// of the records up to there; after a crash the file is cut back to it, so no line stands in it twice and none is
// missing. A file that somebody renamed or removed is made anew at the next delivery.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

// Sink appends to one file. See sink.Sink.
type Sink struct {
	path string
	log  *slog.Logger
	max  int64 // 0: never rotated by us
	keep int
	f    *os.File
	size int64
	buf  []byte
}

// New makes a sink for path; it touches nothing.
func New(path string, log *slog.Logger) *Sink { return &Sink{path: path, log: log} }

// NewRotated is New for a file that becomes PATH.1 when it has grown to max bytes; PATH.keep is the last that stays.
func NewRotated(path string, max int64, keep int, log *slog.Logger) *Sink {
	return &Sink{path: path, log: log, max: max, keep: keep}
}

// Class is Acknowledged: fsync has returned.
func (s *Sink) Class() sink.Class { return sink.Acknowledged }

// Pace spares the disk: at most ten fsyncs a second.
func (s *Sink) Pace() time.Duration { return 100 * time.Millisecond }

// Resume opens the file and cuts off what was appended after mark.
func (s *Sink) Resume(_ context.Context, mark string) (string, error) {
	if err := s.open(); err != nil {
		return "", err
	}
	var dev, ino uint64
	var length int64
	n, _ := fmt.Sscanf(mark, "%d:%d:%d", &dev, &ino, &length)
	if n == 3 && s.max > 0 {
		if err := s.unrotate(dev, ino, length); err != nil {
			return "", err
		}
	}
	if d, i := s.identity(); n == 3 && d == dev && i == ino && s.size > length {
		s.log.Info("lines without a saved position were cut off and will be written again", "path", s.path, "bytes", s.size-length)
		if err := s.cut(length); err != nil {
			return "", err
		}
	}
	return s.mark(), s.f.Sync()
}

// Deliver appends the records with one write and one fsync.
func (s *Sink) Deliver(_ context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if err := s.follow(); err != nil {
		return sink.Receipt{}, err
	}
	if err := s.rotate(); err != nil {
		return sink.Receipt{}, err
	}
	s.buf = s.buf[:0]
	for i := range records {
		s.buf = AppendLine(s.buf, &records[i])
	}
	n, err := s.f.WriteAt(s.buf, s.size)
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		if n > 0 {
			err = errors.Join(err, s.cut(s.size))
		}
		return sink.Receipt{}, fmt.Errorf("append: %w", err)
	}
	s.size += int64(n)
	return sink.Receipt{Acked: len(records), Mark: s.mark()}, nil
}

// Close closes the file.
func (s *Sink) Close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

// follow opens the file again when the path leads to another one by now (rotated, removed), and looks at its length
// again: whoever cut it meanwhile meant it.
func (s *Sink) follow() error {
	if s.f == nil {
		return s.open()
	}
	at, err := os.Stat(s.path)
	have, err2 := s.f.Stat()
	if err == nil && err2 == nil && os.SameFile(at, have) {
		s.size = have.Size()
		return nil
	}
	return errors.Join(s.Close(), s.open())
}

// rotate moves a full file aside.
func (s *Sink) rotate() error {
	if s.max == 0 || s.size < s.max {
		return nil
	}
	for k := s.keep - 1; k >= 0; k-- {
		from := s.generation(k)
		if err := os.Rename(from, s.generation(k+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	return errors.Join(s.Close(), s.open())
}

func (s *Sink) generation(k int) string {
	if k == 0 {
		return s.path
	}
	return fmt.Sprintf("%s.%d", s.path, k)
}

// unrotate looks whether the file of the mark was rotated after it was saved: what the new one holds has no saved
// position either.
func (s *Sink) unrotate(dev, ino uint64, length int64) error {
	for k := 1; k <= s.keep; k++ {
		var st syscall.Stat_t
		if syscall.Stat(s.generation(k), &st) != nil || st.Dev != dev || st.Ino != ino {
			continue
		}
		if err := os.Truncate(s.generation(k), length); err != nil {
			return fmt.Errorf("cut: %w", err)
		}
		for newer := k - 1; newer >= 0; newer-- {
			if err := os.Truncate(s.generation(newer), 0); err != nil {
				return fmt.Errorf("cut: %w", err)
			}
		}
		s.size = 0
		return nil
	}
	return nil
}

func (s *Sink) open() error {
	if err := errors.Join(s.Close(), os.MkdirAll(filepath.Dir(s.path), 0o755)); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s.f = f
	if s.size, err = f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return nil
}

func (s *Sink) cut(length int64) error {
	if err := s.f.Truncate(length); err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	s.size = length
	return nil
}

func (s *Sink) identity() (dev, ino uint64) {
	if fi, err := s.f.Stat(); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			return st.Dev, st.Ino
		}
	}
	return 0, 0
}

func (s *Sink) mark() string {
	dev, ino := s.identity()
	return fmt.Sprintf("%d:%d:%d", dev, ino, s.size)
}

// AppendLine adds "TIME HOST NAME STREAM TEXT". Spaces in a name become _, so that the text begins after the fourth.
func AppendLine(b []byte, r *sink.Record) []byte {
	b = r.Time().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	name, std := r.Origin.Name, r.Std.String()
	if r.Origin.Path != "" {
		std = "file:" + r.Origin.Path
	}
	if std == "" {
		std = "-"
	}
	if name == "" {
		name = "-"
	}
	for _, word := range []string{r.Origin.Host, name, std} {
		b = append(b, ' ')
		b = append(b, strings.ReplaceAll(word, " ", "_")...)
	}
	b = append(b, ' ')
	b = append(b, r.Line...)
	return append(b, '\n')
}
