package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strconv"
	"sync"

	places "github.com/fairlead-dev/fairlead/cni-plugin/crash"
)

// Journal is an append-only file of records that belong to one boot. Appending is one write(2): kill -9 loses nothing
// of the page cache, and after a power cut the kernel state that the records speak of is gone too. Whoever wants the
// disk to follow calls Sync, off the hot path.
//
// The file is text, a header and one record a line, each with its checksum (CRC-32C):
//
//	fairlead-journal 1 boot 5c3f...
//	1a2b3c4d {"op":"attach",...}
//
// A Journal is safe for concurrent use.
type Journal struct {
	dir  *Dir
	name string
	boot string

	mu    sync.Mutex
	f     *os.File
	dirty bool
	size  int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const journalHeader = "fairlead-journal 1 boot "

// OpenJournal opens the journal called name, made when it is missing, and gives the records that it holds, oldest first.
// A torn last line is cut off. A journal of another boot is void: it is emptied. One that is damaged before its last
// line, or foreign, is kept aside; the records before the damage are used.
func (d *Dir) OpenJournal(name, bootID string) (*Journal, []json.RawMessage, error) {
	j := &Journal{dir: d, name: name, boot: bootID}
	records, rewrite, err := j.load()
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	if rewrite {
		err = j.rewrite(records)
	} else {
		err = j.open()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	return j, records, nil
}

// load reads the file and tells whether it must be written anew before it can be appended to.
func (j *Journal) load() (records []json.RawMessage, rewrite bool, err error) {
	path := j.dir.File(j.name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	header, body, whole := bytes.Cut(text, []byte("\n"))
	boot, ours := bytes.CutPrefix(header, []byte(journalHeader))
	switch {
	case !whole || !ours:
		if len(text) > 0 {
			j.dir.aside(j.name, errors.New("no journal header: torn or foreign"))
		}
		return nil, true, nil
	case string(boot) != j.boot:
		j.dir.log.Info("journal of an earlier boot is void", "path", path, "boot", string(boot))
		return nil, true, nil
	}
	records, rest, fault := parseRecords(body)
	switch {
	case fault != nil:
		j.dir.aside(j.name, fmt.Errorf("record %d: %w", len(records)+1, fault))
		return records, true, nil
	case len(rest) > 0:
		j.dir.log.Warn("journal ended in a torn record, which was cut off", "path", path, "bytes", len(rest))
		return records, true, nil
	}
	return records, false, nil
}

// parseRecords reads lines until the end, an unfinished line (rest), or one that is damaged (fault).
func parseRecords(body []byte) (records []json.RawMessage, rest []byte, fault error) {
	for len(body) > 0 {
		line, next, whole := bytes.Cut(body, []byte("\n"))
		if !whole {
			return records, body, nil
		}
		record, err := parseRecord(line)
		if err != nil {
			return records, nil, err
		}
		records = append(records, record)
		body = next
	}
	return records, nil, nil
}

func parseRecord(line []byte) (json.RawMessage, error) {
	sum, record, ok := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil {
		return nil, errors.New("no checksum")
	}
	if got := crc32.Checksum(record, castagnoli); got != uint32(want) {
		return nil, fmt.Errorf("checksum is %08x, the line says %08x", got, want)
	}
	return bytes.Clone(record), nil
}

func appendRecord(to []byte, record []byte) []byte {
	to = fmt.Appendf(to, "%08x ", crc32.Checksum(record, castagnoli))
	return append(append(to, record...), '\n')
}

// Append adds records, in one write. When it returns nil they survive kill -9 of the agent.
func (j *Journal) Append(records ...any) error {
	var text []byte
	for _, r := range records {
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("append to journal: %w", err)
		}
		text = appendRecord(text, b)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dir.step("append")
	n, err := j.f.Write(text)
	if err != nil {
		// A part of a record (disk full) would damage every later one: cut it off again.
		err = errors.Join(err, j.f.Truncate(j.size))
		return fmt.Errorf("append to journal %s: %w", j.f.Name(), err)
	}
	j.size += int64(n)
	j.dirty = true
	places.Point("journal")
	return nil
}

// Size gives the file's length in bytes, by which its owner decides when to Compact.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

// Compact replaces all records by these. A crash leaves the old or the new journal. Nobody may Append meanwhile to
// whom the replaced records matter: the caller holds its own lock over what the journal describes.
func (j *Journal) Compact(records ...any) error {
	raw := make([]json.RawMessage, 0, len(records))
	for _, r := range records {
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("compact journal: %w", err)
		}
		raw = append(raw, b)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.rewrite(raw); err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	return nil
}

func (j *Journal) rewrite(records []json.RawMessage) error {
	text := []byte(journalHeader + j.boot + "\n")
	for _, r := range records {
		text = appendRecord(text, r)
	}
	if err := j.dir.Write(j.name, text); err != nil {
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // the replaced file: nothing of it is needed
	}
	return j.open()
}

func (j *Journal) open() error {
	f, err := os.OpenFile(j.dir.File(j.name), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.f, j.size = f, st.Size()
	return nil
}

// Sync brings what was appended to the disk (fdatasync). It blocks for the disk, not for Append; it does nothing when
// nothing was appended since.
func (j *Journal) Sync() error {
	j.mu.Lock()
	f, dirty := j.f, j.dirty
	j.dirty = false
	j.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := fdatasync(f); err != nil && !errors.Is(err, os.ErrClosed) { // closed: compacted meanwhile, which synced
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

// Close syncs and closes the file. The Journal must not be used afterwards.
func (j *Journal) Close() error {
	err := j.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(err, j.f.Close())
}
