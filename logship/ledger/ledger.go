// Package ledger keeps how far each sink has acknowledged each stream, so that the next start of the agent goes on
// exactly there.
//
// It owns two files of the log shipper's state directory. positions.json is a whole promise, replaced at start, at stop
// and when the journal has grown. positions.log is a journal of what came since: one line a batch, appended with one
// write when the sink has acknowledged it, so kill -9 loses nothing that was written; fsync follows within a second,
// for power loss. Each line begins with the checksum of the rest; a torn tail is cut off and said aloud.
//
// A file that is damaged before its end is set aside under another name, and what can be read of it is used: a position
// that is lost lets lines be sent again, never be passed over. The epoch changes then, so that what serves the lost
// positions, as pins do, is known to.
package ledger

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// Source says how a stream is found again after a restart, even when its container is gone by then.
type Source struct {
	Root   tail.Root           `json:"root"`
	Path   string              `json:"path"`
	Format container.LogFormat `json:"format"`
	Origin *sink.Origin        `json:"origin"`
	// Full is how many bytes its writer fills before it begins the file anew, 0 when that is not known; Empties tells that it
	// keeps one file only.
	Full    int64 `json:"full,omitempty"`
	Empties bool  `json:"empties,omitempty"`
}

// Position is how far a sink has acknowledged a stream. From, where it is set, is the place from which a reader decodes
// again to have the pieces of unfinished lines; what it finds before the Position itself has been delivered.
type Position struct {
	tail.Place
	From *tail.Place `json:"from,omitempty"`
	// Left are the places in older generations to which programs may still write.
	Left []tail.Place `json:"left,omitempty"`
	Gen  int64        `json:"gen,omitempty"` // the generation's number, by which Seen knows it
}

// Seen is a generation that was seen and that a sink has not acknowledged: all that is known of it should it be
// destroyed while no agent runs. Its Offset is its size.
type Seen struct {
	tail.Place
	Gen int64 `json:"gen"`
	Cut bool  `json:"cut,omitempty"` // destroyed already
}

// Sink is what is kept of one sink.
type Sink struct {
	Mark string              `json:"mark,omitempty"`
	At   map[string]Position `json:"at"` // by stream
	// Intent is where the sink will stand when the batch that is on its way is acknowledged, and Sent the sink's proof
	// that all of it was written; see sink.Confirmer.
	Intent map[string]Position `json:"intent,omitempty"`
	Sent   string              `json:"sent,omitempty"`
}

// Book is the ledger. Its methods are safe for concurrent use.
type Book struct {
	dir *state.Dir
	log *slog.Logger

	mu      sync.Mutex
	content content
	journal *os.File
	size    int64
	dirty   bool // appended since the last Sync
	lossy   bool // positions were lost when it was opened
	behind  bool // an append failed: only a whole checkpoint is good again
}

type content struct {
	Seq     uint64            `json:"seq"`   // the last journal line that is contained
	Epoch   string            `json:"epoch"` // changes when positions were lost
	Streams map[string]Source `json:"streams"`
	Sinks   map[string]*Sink  `json:"sinks"`
	Sums    map[string]Sum    `json:"sums,omitempty"` // by stream
	Seen    map[string][]Seen `json:"seen,omitempty"` // by stream; only of those that a sink is behind with
}

// Sum is what the beginning of a stream's newest file was when a sink had it.
type Sum struct {
	tail.Identity
	Offset int64  `json:"offset"`
	CRC    uint32 `json:"crc"`             // CRC-32C of the bytes before Offset
	Older  []Sum  `json:"older,omitempty"` // of files before this one, the newest first
}

// Next is the empty sum of the file that comes after s, which it keeps with at most n of the older ones.
func (s Sum) Next(id tail.Identity, n int) Sum {
	next := Sum{Identity: id}
	if s.Offset > 0 && s.Identity != id {
		next.Older = []Sum{{Identity: s.Identity, Offset: s.Offset, CRC: s.CRC}}
	}
	for _, o := range s.Older {
		if len(next.Older) < n && o.Identity != id {
			next.Older = append(next.Older, o)
		}
	}
	return next
}

// entry is one line of the journal; what is empty is not changed.
type entry struct {
	Seq    uint64              `json:"seq"`
	Stream string              `json:"stream,omitempty"` // with Source: a new stream; without: it has ended
	Source *Source             `json:"source,omitempty"`
	Sink   string              `json:"sink,omitempty"`
	Gone   bool                `json:"gone,omitempty"` // the sink is no longer configured
	Mark   string              `json:"mark,omitempty"`
	At     map[string]Position `json:"at,omitempty"`
	Intent map[string]Position `json:"intent,omitempty"`
	Sent   string              `json:"sent,omitempty"`
	Sums   map[string]Sum      `json:"sums,omitempty"`
	Seen   map[string][]Seen   `json:"seen,omitempty"`
	Moved  bool                `json:"moved,omitempty"` // nothing was acknowledged: what is on its way still is
}

const (
	checkpointFile = "positions.json"
	journalFile    = "positions.log"
	// journalLimit is when a checkpoint takes the journal's place.
	journalLimit = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open reads what was saved and writes it as one checkpoint.
func Open(dir *state.Dir, log *slog.Logger) (*Book, error) {
	b := &Book{dir: dir, log: log}
	if err := b.readCheckpoint(); err != nil {
		return nil, fmt.Errorf("open positions: %w", err)
	}
	if b.content.Streams == nil {
		b.content.Streams = map[string]Source{}
	}
	if b.content.Sinks == nil {
		b.content.Sinks = map[string]*Sink{}
	}
	f, err := os.OpenFile(dir.File(journalFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open positions: %w", err)
	}
	b.journal = f
	text, err := io.ReadAll(f)
	if err == nil {
		err = b.replay(text)
	}
	if err == nil {
		if b.content.Epoch == "" {
			b.content.Epoch = strings.ToLower(rand.Text()[:8])
		}
		err = b.checkpoint()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open positions: %w", err), f.Close())
	}
	return b, nil
}

func parse(line []byte) (e entry, err error) {
	sum, rest, ok := bytes.Cut(line, []byte(" "))
	body, ended := bytes.CutSuffix(rest, []byte("\n"))
	if !ok || !ended || string(sum) != checksum(body) {
		return e, errors.New("checksum differs")
	}
	return e, json.Unmarshal(body, &e)
}

func checksum(body []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) }

func (c *content) apply(e entry) {
	c.Seq = e.Seq
	switch {
	case e.Sums != nil:
		if c.Sums == nil {
			c.Sums = map[string]Sum{}
		}
		maps.Copy(c.Sums, e.Sums)
	case e.Seen != nil:
		if c.Seen == nil {
			c.Seen = map[string][]Seen{}
		}
		maps.Copy(c.Seen, e.Seen)
		maps.DeleteFunc(c.Seen, func(_ string, gens []Seen) bool { return len(gens) == 0 })
	case e.Stream != "" && e.Source != nil:
		c.Streams[e.Stream] = *e.Source
	case e.Stream != "":
		delete(c.Streams, e.Stream)
		delete(c.Sums, e.Stream)
		delete(c.Seen, e.Stream)
		for _, s := range c.Sinks {
			delete(s.At, e.Stream)
		}
	case e.Gone:
		delete(c.Sinks, e.Sink)
	case e.Sink != "":
		s := c.Sinks[e.Sink]
		if s == nil {
			s = &Sink{At: map[string]Position{}}
			c.Sinks[e.Sink] = s
		}
		switch {
		case e.Intent != nil:
			s.Intent, s.Sent = e.Intent, ""
		case e.Sent != "":
			s.Sent = e.Sent
		default:
			if !e.Moved {
				s.Intent, s.Sent = nil, ""
			}
			maps.Copy(s.At, e.At)
		}
		if e.Mark != "" {
			s.Mark = e.Mark
		}
	}
}

// append puts e into force and writes it. What cannot be written is in force all the same and is written by the next
// checkpoint; the error is for counting.
func (b *Book) append(e entry) error {
	e.Seq = b.content.Seq + 1
	b.content.apply(e)
	if b.behind || b.size > journalLimit {
		return b.checkpoint()
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	line := make([]byte, 0, len(body)+10)
	line = append(append(append(append(line, checksum(body)...), ' '), body...), '\n')
	if _, err := b.journal.WriteAt(line, b.size); err != nil {
		b.behind = true
		return fmt.Errorf("save position: %w", errors.Join(err, b.journal.Truncate(b.size)))
	}
	b.size += int64(len(line))
	b.dirty = true
	return nil
}

// checkpoint writes everything and empties the journal. A crash between the two is harmless: the lines are older than
// the checkpoint's Seq.
func (b *Book) checkpoint() error {
	b.behind = true
	if err := b.dir.WriteJSON(checkpointFile, b.content); err != nil {
		return err
	}
	if err := b.journal.Truncate(0); err != nil {
		return fmt.Errorf("empty journal: %w", err)
	}
	b.size, b.dirty, b.behind = 0, false, false
	return nil
}

// Ack saves that sink has acknowledged the streams up to the positions, and its mark unless that is empty, in one
// write. It does not wait for the disk.
func (b *Book) Ack(name, mark string, at map[string]Position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Sink: name, Mark: mark, At: at})
}

// Moved saves that the same bytes are to be found at other positions now: the file was truncated and there is a copy.
func (b *Book) Moved(name string, at map[string]Position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Sink: name, At: at, Moved: true})
}

// Intend notes where sink will stand when it acknowledges what it is given next. It does not move anything.
func (b *Book) Intend(name string, at map[string]Position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Sink: name, Intent: at})
}

// Sent notes that all of the intent was written, and how a later run can prove that it arrived. It is one short write,
// because a kill before it doubles the batch.
func (b *Book) Sent(name, proof string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Sink: name, Sent: proof})
}

// Intent gives what was on its way to a sink when the former run ended. ok is false when nothing was.
func (b *Book) Intent(name string) (at map[string]Position, proof string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.content.Sinks[name]; s != nil && s.Intent != nil {
		return s.Intent, s.Sent, true
	}
	return nil, "", false
}

// AddStream makes a stream known, so that a restart finds it without its container.
func (b *Book) AddStream(key string, s Source) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Stream: key, Source: &s})
}

// DropStream forgets a stream: every sink has all of it and it will not be written to again.
func (b *Book) DropStream(key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Stream: key})
}

// SetSinks makes names the sinks that are kept. One that was not known begins in each stream where the furthest of the
// others stands, or at the start of everything when fromStart says so. added names the new ones.
func (b *Book) SetSinks(names []string, fromStart func(string) bool) (added, dropped []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	front := map[string]Position{}
	for _, s := range b.content.Sinks {
		for stream, p := range s.At {
			if have, ok := front[stream]; !ok || further(p, have) {
				front[stream] = p
			}
		}
	}
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
		if _, ok := b.content.Sinks[n]; ok {
			continue
		}
		at := front
		if fromStart(n) || b.lossy {
			at = nil
		}
		added = append(added, n)
		err = errors.Join(err, b.append(entry{Sink: n, At: maps.Clone(at)}))
	}
	for n := range b.content.Sinks {
		if !want[n] {
			dropped = append(dropped, n)
		}
	}
	for _, n := range dropped {
		err = errors.Join(err, b.append(entry{Sink: n, Gone: true}))
	}
	return added, dropped, err
}

// further orders places by the birth of their files, then by offset.
func further(a, b Position) bool {
	if a.Birth != b.Birth {
		return a.Birth > b.Birth
	}
	return a.Offset > b.Offset
}

// Summed saves sums, by stream.
func (b *Book) Summed(sums map[string]Sum) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Sums: sums})
}

// Sum gives what was summed of a stream.
func (b *Book) Sum(stream string) Sum {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Sums[stream]
}

// Remember saves which generations of streams were seen; none forgets those of a stream.
func (b *Book) Remember(seen map[string][]Seen) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.append(entry{Seen: seen})
}

// Seen gives what was remembered of a stream, in the order of the generations. The slice is not to be changed.
func (b *Book) Seen(stream string) []Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Seen[stream]
}

// Epoch names the time since which no position was lost.
func (b *Book) Epoch() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content.Epoch
}

// Streams gives all known streams. The map is the caller's.
func (b *Book) Streams() map[string]Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.content.Streams)
}

// Known tells whether a stream is known.
func (b *Book) Known(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.content.Streams[key]
	return ok
}

// Mark gives what a sink noted last.
func (b *Book) Mark(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.content.Sinks[name]; s != nil {
		return s.Mark
	}
	return ""
}

// Position gives how far a sink is in a stream.
func (b *Book) Position(name, stream string) (Position, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.content.Sinks[name]; s != nil {
		p, ok := s.At[stream]
		return p, ok
	}
	return Position{}, false
}

// Sync makes all that was saved before durable. It costs nothing when nothing was.
func (b *Book) Sync() error {
	b.mu.Lock()
	if b.behind {
		defer b.mu.Unlock()
		return b.checkpoint()
	}
	f, dirty := b.journal, b.dirty
	b.dirty = false
	b.mu.Unlock()
	if !dirty {
		return nil
	}
	// Outside the lock: acknowledgements go on while the disk works.
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		b.mu.Lock()
		b.behind = true
		b.mu.Unlock()
		return fmt.Errorf("sync positions: %w", err)
	}
	return nil
}

// Close writes a checkpoint and closes the journal.
func (b *Book) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.checkpoint(), b.journal.Close())
}
