package logship

import (
	"fmt"
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

// add keeps the rejected records durably.
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
	f, err := os.OpenFile(d.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep rejected records: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("keep rejected records: %w", err)
	}
	return f.Sync()
}
