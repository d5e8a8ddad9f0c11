package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Saved is the ledger as it lies on the disk.
type Saved struct {
	Streams map[string]Source
	Sinks   map[string]*Sink
	Sums    map[string]Sum
	Seen    map[string][]Seen
	Damage  []string // lines and files that cannot be read
}

// Read reads what is saved in the log shipper's state directory and changes nothing, also while an agent works with it.
func Read(dir string) (Saved, error) {
	var s Saved
	checkpoint, journal := filepath.Join(dir, checkpointFile), filepath.Join(dir, journalFile)
	c := content{Streams: map[string]Source{}, Sinks: map[string]*Sink{}}
	text, err := os.ReadFile(checkpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return s, fmt.Errorf("read positions: %w", err)
	default:
		if err := json.Unmarshal(text, &c); err != nil {
			s.Damage = append(s.Damage, fmt.Sprintf("%s cannot be read: %v", checkpoint, err))
			c = salvage(text)
		}
	}
	lines, err := os.ReadFile(journal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("read positions: %w", err)
	}
	number := 0
	for line := range bytes.Lines(lines) {
		number++
		e, err := parse(line)
		if err != nil {
			if bytes.HasSuffix(line, []byte("\n")) { // else it is just being written
				s.Damage = append(s.Damage, fmt.Sprintf("%s line %d: %v", journal, number, err))
			}
			continue
		}
		if e.Seq > c.Seq {
			c.apply(e)
		}
	}
	s.Streams, s.Sinks, s.Sums, s.Seen = c.Streams, c.Sinks, c.Sums, c.Seen
	return s, nil
}
