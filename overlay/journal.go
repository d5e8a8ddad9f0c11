package overlay

import (
	"encoding/json"
	"fmt"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// record is one line of the attachment journal. It is appended before the first change of the kernel that it speaks of.
type record struct {
	Op         string           `json:"op"` // "attach", "detach", "gone"
	Attachment *plan.Attachment `json:"attachment,omitempty"`
	Key        *plan.Key        `json:"key,omitempty"`
}

func attachRecord(a plan.Attachment) record { return record{Op: "attach", Attachment: &a} }
func detachRecord(key plan.Key) record      { return record{Op: "detach", Key: &key} }
func goneRecord(key plan.Key) record        { return record{Op: "gone", Key: &key} }
func parseRecord(raw json.RawMessage) (record, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("decode journal record: %w", err)
	}
	switch {
	case r.Op == "attach" && r.Attachment != nil:
	case (r.Op == "detach" || r.Op == "gone") && r.Key != nil:
	default:
		return r, fmt.Errorf("decode journal record: unknown form %s", raw)
	}
	return r, nil
}

// remembered is what the journal says of one attachment.
type remembered struct {
	plan.Attachment
	leaving bool // its detach was begun
}

// replay gives the attachments that the journal leaves, by key, and an error for each record that it does not know.
func replay(records []json.RawMessage) (_ map[plan.Key]remembered, unknown []error) {
	out := map[plan.Key]remembered{}
	for _, raw := range records {
		r, err := parseRecord(raw)
		if err != nil {
			unknown = append(unknown, err)
			continue
		}
		switch r.Op {
		case "attach":
			out[r.Attachment.Key] = remembered{Attachment: *r.Attachment}
		case "detach":
			if m, ok := out[*r.Key]; ok {
				m.leaving = true
				out[*r.Key] = m
			}
		case "gone":
			delete(out, *r.Key)
		}
	}
	return out, unknown
}
