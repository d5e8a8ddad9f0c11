package reap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// auditName is the audit log below the reaper's state directory: one JSON object a line, only ever appended to.
const auditName = "audit.jsonl"

// line is one line of the audit log. A "begin" is on the disk before anything is touched; the line that ends it has the
// same Ref and another Op.
type line struct {
	Time     time.Time `json:"time"`
	Op       string    `json:"op"` // begin, removed, quarantined, failed, interrupted, undone, purged
	Ref      string    `json:"ref"`
	Kind     Kind      `json:"kind"`
	ID       string    `json:"id"`
	Owner    string    `json:"owner,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
	To       string    `json:"to,omitempty"`
	Error    string    `json:"error,omitempty"`
	// Resource stands in begin, so that what was begun can be finished.
	Resource *Resource `json:"resource,omitempty"`
}

// audit appends to the log. It is guarded by the Reaper's lock.
type audit struct {
	path string
	f    *os.File
}

// openAudit gives the log and what was begun in it and never ended, oldest first. A line that a crash has torn is
// ended; a torn begin was followed by no action.
func openAudit(path string) (*audit, []Resource, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read audit log: %w", err)
	}
	a := &audit{path: path}
	if a.f, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, nil, fmt.Errorf("open audit log: %w", err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		_, err = a.f.WriteString("\n")
	}
	if err = errors.Join(err, syncDir(filepath.Dir(path))); err != nil {
		return nil, nil, fmt.Errorf("open audit log: %w", errors.Join(err, a.f.Close()))
	}
	return a, begun(text), nil
}

func begun(text []byte) []Resource {
	var order []string
	open := map[string]*Resource{}
	for raw := range bytes.Lines(text) {
		var l line
		if json.Unmarshal(raw, &l) != nil {
			continue // torn
		}
		if l.Op == "begin" && l.Resource != nil {
			open[l.Ref] = l.Resource
			order = append(order, l.Ref)
		} else {
			delete(open, l.Ref)
		}
	}
	var out []Resource
	for _, ref := range order {
		if r := open[ref]; r != nil {
			out = append(out, *r)
			delete(open, ref)
		}
	}
	return out
}

// write appends one line and waits for the disk.
func (a *audit) write(l line) error {
	l.Time = time.Now().UTC()
	b, err := json.Marshal(l)
	if err == nil {
		_, err = a.f.Write(append(b, '\n'))
	}
	if err == nil {
		err = a.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("write audit log %s: %w", a.path, err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
