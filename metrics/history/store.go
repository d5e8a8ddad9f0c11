package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/state"
)

// store is the history's directory: slot-20261121T120000Z.json and day-2026-11-21.json, each replaced as a whole.
type store struct {
	dir *state.Dir
}

const (
	slotPrefix, dayPrefix, suffix = "slot-", "day-", ".json"
	slotTime                      = "20060102T150405Z"
)

// putSlot writes one record a line.
func (s store) putSlot(slot Slot) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"from\":%q,\"at\":%q,\"records\":[", slot.From.UTC().Format(time.RFC3339), slot.At.UTC().Format(time.RFC3339Nano))
	for i, r := range slot.Records {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode usage record of %s: %w", r.ID, err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return s.dir.Write(slotPrefix+slot.From.UTC().Format(slotTime)+suffix, b.Bytes())
}

func (s store) putDay(d Day) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode profiles: %w", err)
	}
	return s.dir.Write(dayPrefix+d.Date+suffix, append(b, '\n'))
}

// file is one of ours, with the time at which it begins.
type file struct {
	name string
	from time.Time
}

// list gives the files with this prefix, oldest first. Others in the directory are nobody's business here.
func (s store) list(prefix, layout string) ([]file, error) {
	entries, err := os.ReadDir(s.dir.Path())
	if err != nil {
		return nil, fmt.Errorf("list history: %w", err)
	}
	var out []file
	for _, e := range entries {
		middle, ok := strings.CutPrefix(e.Name(), prefix)
		middle, ok2 := strings.CutSuffix(middle, suffix)
		if from, err := time.Parse(layout, middle); ok && ok2 && err == nil {
			out = append(out, file{e.Name(), from})
		}
	}
	slices.SortFunc(out, func(a, b file) int { return a.from.Compare(b.from) })
	return out, nil
}

// slots gives those that begin at since or later, and before until.
func (s store) slots(since, until time.Time) ([]Slot, error) {
	files, err := s.list(slotPrefix, slotTime)
	if err != nil {
		return nil, err
	}
	var out []Slot
	for _, f := range files {
		if f.from.Before(since) || !f.from.Before(until) {
			continue
		}
		var slot Slot
		ok, err := s.dir.ReadJSON(f.name, &slot)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, slot)
		}
	}
	return out, nil
}

// lastSlot gives the newest, or a zero one.
func (s store) lastSlot() (Slot, error) {
	files, err := s.list(slotPrefix, slotTime)
	if err != nil {
		return Slot{}, err
	}
	for _, f := range slices.Backward(files) {
		var slot Slot
		if ok, err := s.dir.ReadJSON(f.name, &slot); ok || err != nil {
			return slot, err
		}
	}
	return Slot{}, nil
}

// days gives the profiles of the day of now, and those of the days before it since then as one.
func (s store) days(now, since time.Time) (past map[string]*Profile, today Day, err error) {
	past, today = map[string]*Profile{}, Day{Date: dateOf(now), Profiles: map[string]*Profile{}}
	files, err := s.list(dayPrefix, time.DateOnly)
	if err != nil {
		return nil, Day{}, err
	}
	for _, f := range files {
		if f.from.AddDate(0, 0, 1).Before(since) {
			continue
		}
		var d Day
		ok, err := s.dir.ReadJSON(f.name, &d)
		switch {
		case err != nil:
			return nil, Day{}, err
		case !ok || d.Profiles == nil:
		case d.Date == today.Date:
			today = d
		default:
			join(past, d)
		}
	}
	return past, today, nil
}

// join adds a day to those before it. Beyond mostProfiles the newest subjects find no room.
func join(past map[string]*Profile, d Day) {
	for subject, p := range d.Profiles {
		if p == nil || p.CPU == nil || p.Memory == nil {
			continue
		}
		if have := past[subject]; have != nil {
			have.merge(p)
		} else if len(past) < mostProfiles {
			past[subject] = p
		}
	}
}

// expire removes what ended before then.
func (s store) expire(before time.Time) error {
	var errs []error
	for _, kind := range []struct{ prefix, layout string }{{slotPrefix, slotTime}, {dayPrefix, time.DateOnly}} {
		files, err := s.list(kind.prefix, kind.layout)
		errs = append(errs, err)
		for _, f := range files {
			if f.from.Add(24 * time.Hour).Before(before) { // both kinds cover a day at most
				errs = append(errs, s.dir.Remove(f.name))
			}
		}
	}
	return errors.Join(errs...)
}
