package history

import (
	"cmp"
	"slices"
	"time"
)

// Report is who used how much since then.
type Report struct {
	From  time.Time `json:"from"`  // when the first record begins: records are by the slot, and may begin later than was asked
	To    time.Time `json:"to"`    // the last sample
	Whole bool      `json:"whole"` // the records reach back to what was asked for
	Rows  []Row     `json:"containers"`
}

// Row is what one container used. A figure that is absent is unknown.
type Row struct {
	Who
	From              time.Time `json:"from"`
	To                time.Time `json:"to"`
	CPUSeconds        *float64  `json:"cpu_seconds,omitempty"`
	MemoryByteSeconds float64   `json:"memory_byte_seconds"`
	BytesRead         *uint64   `json:"read_bytes,omitempty"`
	BytesWritten      *uint64   `json:"written_bytes,omitempty"`
	BytesReceived     *uint64   `json:"received_bytes,omitempty"`
	BytesSent         *uint64   `json:"sent_bytes,omitempty"`
	OOMKills          *uint64   `json:"oom_kills,omitempty"`
	Ended             bool      `json:"ended,omitempty"`
	// Incomplete tells that more was used than is written here; Missing says what is not in.
	Incomplete bool     `json:"incomplete,omitempty"`
	Missing    []string `json:"missing,omitempty"`
}

// Sum adds the records of slots up, container by container; the one that used most CPU time comes first.
func Sum(since time.Time, slots []Slot) Report {
	out := Report{Rows: []Row{}}
	rows := map[string]*Row{}
	used := map[string]*Amounts{}
	for _, s := range slots {
		if s.From.IsZero() {
			continue
		}
		if out.From.IsZero() || s.From.Before(out.From) {
			out.From = s.From
		}
		out.To = latest(out.To, s.At)
		for _, r := range s.Records {
			key := string(r.Runtime) + "/" + string(r.ID)
			if rows[key] == nil {
				rows[key], used[key] = &Row{Who: r.Who, From: r.From}, &Amounts{}
			}
			rows[key].take(r)
			for i, v := range r.Used {
				if v.Known {
					used[key][i].N, used[key][i].Known = used[key][i].N+v.N, true
				}
			}
		}
	}
	out.Whole = !out.From.IsZero() && !out.From.After(since)
	for key, row := range rows {
		row.show(*used[key])
		out.Rows = append(out.Rows, *row)
	}
	slices.SortFunc(out.Rows, func(a, b Row) int {
		return cmp.Or(-cmp.Compare(zero(a.CPUSeconds), zero(b.CPUSeconds)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (row *Row) take(r Record) {
	if r.From.Before(row.From) {
		row.From = r.From
	}
	if !r.To.Before(row.To) {
		row.Who, row.To, row.Ended = r.Who, r.To, r.Ended
	}
	row.MemoryByteSeconds += r.MemoryByteSeconds
	for _, m := range r.Missing {
		if !slices.Contains(row.Missing, m) {
			row.Missing = append(row.Missing, m)
		}
	}
	row.Incomplete = len(row.Missing) > 0
}

func (row *Row) show(a Amounts) {
	if a[CPU].Known {
		row.CPUSeconds = new(float64(a[CPU].N) / 1e9)
	}
	for to, kind := range map[**uint64]Amount{
		&row.BytesRead: BytesRead, &row.BytesWritten: BytesWritten, &row.BytesReceived: BytesReceived,
		&row.BytesSent: BytesSent, &row.OOMKills: OOMKills,
	} {
		if a[kind].Known {
			*to = new(a[kind].N)
		}
	}
}

func zero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
