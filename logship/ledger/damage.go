package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// replay applies the journal's lines. A torn line at the end is cut off. One that is damaged before the end is passed
// over, and the journal is set aside: those after it say where their own streams stand, whatever it said.
func (b *Book) replay(text []byte) error {
	var first error
	wrong, number, last := 0, 0, 0
	for line := range bytes.Lines(text) {
		number++
		e, err := parse(line)
		if err != nil {
			if wrong, last = wrong+1, number; first == nil {
				first = fmt.Errorf("line %d: %w", number, err)
			}
			continue
		}
		if e.Seq > b.content.Seq { // older lines are in the checkpoint already
			b.content.apply(e)
		}
	}
	switch {
	case wrong == 0:
		return nil
	case wrong == 1 && last == number:
		b.log.Warn("journal of log positions ends in a torn line, which was cut off", "path", b.dir.File(journalFile), "err", first)
		return nil
	}
	b.lost()
	return b.dir.CopyAside(journalFile, fmt.Errorf("%d of %d lines of log positions are damaged; the others are used, and some log lines may be sent again: %w", wrong, number, first))
}

// lost notes that positions were: whatever served them belongs to another epoch, and a sink that is not known may be
// one that was.
func (b *Book) lost() { b.content.Epoch, b.lossy = "", true }

// readCheckpoint fills the content. A checkpoint that is damaged is set aside, and what stands before the damage is
// used.
func (b *Book) readCheckpoint() error {
	text, err := os.ReadFile(b.dir.File(checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := b.dir.ReadJSON(checkpointFile, &b.content) // sets a damaged one aside, and says so
	if found || err != nil {
		return err
	}
	b.content = salvage(text)
	b.lost()
	places := 0
	for _, s := range b.content.Sinks {
		places += len(s.At)
	}
	b.log.Warn("what is readable of the log positions is used; some lines may be sent again", "path", b.dir.File(checkpointFile), "streams", len(b.content.Streams), "positions", places)
	return nil
}

// salvage reads a checkpoint as far as it is one. The epoch is left out.
func salvage(text []byte) content {
	c := content{Streams: map[string]Source{}, Sinks: map[string]*Sink{}}
	d := json.NewDecoder(bytes.NewReader(text))
	_ = object(d, func(key string) error { // the error is the damage
		switch key {
		case "seq":
			return d.Decode(&c.Seq)
		case "streams":
			return object(d, func(stream string) error {
				var s Source
				err := d.Decode(&s)
				if err == nil {
					c.Streams[stream] = s
				}
				return err
			})
		case "sinks":
			return object(d, func(name string) error {
				s := &Sink{At: map[string]Position{}}
				c.Sinks[name] = s
				return sinkOf(d, s)
			})
		}
		var other any
		return d.Decode(&other)
	})
	return c
}

func sinkOf(d *json.Decoder, s *Sink) error {
	return object(d, func(key string) error {
		switch key {
		case "mark":
			return d.Decode(&s.Mark)
		case "at":
			return object(d, func(stream string) error {
				var p Position
				err := d.Decode(&p)
				if err == nil {
					s.At[stream] = p
				}
				return err
			})
		}
		var other any // what was on its way is sent again
		return d.Decode(&other)
	})
}

// object calls value with each key of the object that d stands before.
func object(d *json.Decoder, value func(key string) error) error {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("expected an object: %w", errors.Join(err, errors.ErrUnsupported))
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if err := value(key); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}
