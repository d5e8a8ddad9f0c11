package logship

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/elastic"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// deadLetters is a file of records that one sink refused for good, with its reason: one JSON object a line. When it is
// full it becomes FILE.1, whose place the next one takes.
type deadLetters struct {
	path  string
	limit int64 // 0: deadLimit
}

const deadLimit = 64 << 20

// add keeps the rejected records durably: all of them, or none and the file is as it was. What a crash has torn at its end
// is ended there, so that the next record is a line of its own.
func (d *deadLetters) add(records []sink.Record, rejected []sink.Rejection) error {
	limit := d.limit
	if limit == 0 {
		limit = deadLimit
	}
	if fi, err := os.Stat(d.path); err == nil && fi.Size() >= limit {
		if err := os.Rename(d.path, d.path+".1"); err != nil {
			return fmt.Errorf("keep rejected records: %w", err)
		}
	}
	var b []byte
	for _, r := range rejected {
		if r.Index < 0 || r.Index >= len(records) {
			continue
		}
		rec := &records[r.Index]
		b = append(b, `{"rejected":"`...)
		b = time.Now().UTC().AppendFormat(b, time.RFC3339)
		b = post.AppendJSON(append(b, `","reason":`...), r.Reason)
		b = append(b, `,"record":`...)
		b = append(elastic.Document(b, rec, elastic.About(rec.Origin)), "}\n"...)
	}
	f, err := os.OpenFile(d.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keep rejected records: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("keep rejected records: %w", err)
	}
	var last [1]byte
	if n, _ := f.ReadAt(last[:], size-1); n == 1 && last[0] != '\n' {
		b = append([]byte{'\n'}, b...)
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err != nil { // a full disk takes half a record: the next try, and there is one, begins where this one did
		return fmt.Errorf("keep rejected records: %w", errors.Join(err, f.Truncate(size)))
	}
	return nil
}
