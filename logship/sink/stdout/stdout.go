// Package stdout is the sink that prints: one line a record, in the form of the file sink, for containers that are
// followed by somebody else, and for looking. It owns nothing.
package stdout

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/file"
)

// Sink writes to w. See sink.Sink.
type Sink struct {
	w    io.Writer
	buf  []byte
	rest []byte // of the last line that was cut in the middle
}

// New makes a sink.
func New(w io.Writer) *Sink { return &Sink{w: w} }

// Class is Stream: whoever reads has it in his pipe.
func (s *Sink) Class() sink.Class { return sink.Stream }

// Pace is short: somebody may be looking.
func (s *Sink) Pace() time.Duration { return 3 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

// Deliver writes the records. What a failed write left of a line comes first the next time.
func (s *Sink) Deliver(_ context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if len(s.rest) > 0 {
		n, err := s.w.Write(s.rest)
		if s.rest = s.rest[n:]; err != nil {
			return sink.Receipt{}, fmt.Errorf("print: %w", err)
		}
	}
	for i := range records {
		s.buf = file.AppendLine(s.buf[:0], &records[i])
		n, err := s.w.Write(s.buf)
		if err == nil {
			continue
		}
		acked := i
		if n > 0 {
			s.rest = append(s.rest[:0], s.buf[n:]...)
			acked++
		}
		return sink.Receipt{Acked: acked}, fmt.Errorf("print: %w", err)
	}
	return sink.Receipt{Acked: len(records)}, nil
}

// Close leaves the writer open: it is not ours.
func (s *Sink) Close() error { return nil }
