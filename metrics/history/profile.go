package history

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
)

// Digest is a distribution in bounded memory (DDSketch): its quantiles are right within 2 %, and its maximum exactly.
type Digest struct {
	sketch *ddsketch.DDSketch
	max    float64
}

// accuracy and bins bound a sketch: 512 bins of 2 % reach over nine decimal powers, and what is below is one bin.
const (
	accuracy = 0.02
	bins     = 512
)

func newDigest() *Digest {
	s, _ := ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, bins) // the accuracy is valid
	return &Digest{sketch: s}
}

func (d *Digest) add(v float64) {
	if v < 0 || math.IsNaN(v) || d.sketch.Add(v) != nil {
		return
	}
	d.max = max(d.max, v)
}

func (d *Digest) merge(o *Digest) {
	_ = d.sketch.MergeWith(o.sketch) // of one mapping, so it cannot fail
	d.max = max(d.max, o.max)
}

// quantiles gives nil while nothing was added.
func (d *Digest) quantiles() *Quantiles {
	v, err := d.sketch.GetValuesAtQuantiles([]float64{0.5, 0.95, 0.99})
	if err != nil {
		return nil
	}
	for i := range v { // the sketch may name a value that lies 2 % above the highest one
		v[i] = min(v[i], d.max)
	}
	return &Quantiles{v[0], v[1], v[2], d.max}
}

type digestText struct {
	Max    float64 `json:"max"`
	Sketch []byte  `json:"sketch"`
}

// MarshalJSON writes the sketch in its own binary form, as base64.
func (d *Digest) MarshalJSON() ([]byte, error) {
	t := digestText{Max: d.max}
	d.sketch.Encode(&t.Sketch, false)
	return json.Marshal(t)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Digest) UnmarshalJSON(b []byte) error {
	var t digestText
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	empty := newDigest()
	if err := empty.sketch.DecodeAndMergeWith(t.Sketch); err != nil { // refuses another mapping
		return fmt.Errorf("decode sketch: %w", err)
	}
	d.sketch, d.max = empty.sketch, t.Max
	return nil
}

// Profile is how one container used CPU and memory over a day, or over several.
type Profile struct {
	Who
	CPU     *Digest   `json:"cpu"`    // cores, the mean of each interval
	Memory  *Digest   `json:"memory"` // bytes of working set
	Samples int       `json:"samples"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`

	Periods          uint64 `json:"periods"`
	ThrottledPeriods uint64 `json:"throttled_periods"`
	OOMKills         uint64 `json:"oom_kills"`

	// As of Last; 0 is none.
	CPULimit      float64 `json:"cpu_limit_cores,omitempty"`
	CPURequest    float64 `json:"cpu_request_cores,omitempty"`
	MemoryLimit   uint64  `json:"memory_limit_bytes,omitempty"`
	MemoryRequest uint64  `json:"memory_request_bytes,omitempty"`
}

func newProfile(w Who, at time.Time) *Profile {
	return &Profile{Who: w, CPU: newDigest(), Memory: newDigest(), First: at}
}

func (p *Profile) add(s Step) {
	p.Samples++
	p.Who, p.Last = s.Who, s.At
	p.Periods += s.Used[Periods].N
	p.ThrottledPeriods += s.Used[ThrottledPeriods].N
	p.OOMKills += s.Used[OOMKills].N
	if took := s.Took.Seconds(); took > 0 && s.Used[CPU].Known {
		p.CPU.add(float64(s.Used[CPU].N) / 1e9 / took)
	}
	if s.Ended { // its memory is gone already
		return
	}
	if m := s.Level.Memory; m.Known {
		p.Memory.add(float64(m.N))
	}
	l := s.Level
	p.CPULimit, p.CPURequest = l.CPULimit, l.CPURequest
	p.MemoryLimit, p.MemoryRequest = l.MemoryLimit.N, l.MemoryRequest.N
}

// merge adds what o, which is later, tells.
func (p *Profile) merge(o *Profile) {
	p.CPU.merge(o.CPU)
	p.Memory.merge(o.Memory)
	p.Who, p.Last = o.Who, o.Last
	p.Samples += o.Samples
	p.Periods += o.Periods
	p.ThrottledPeriods += o.ThrottledPeriods
	p.OOMKills += o.OOMKills
	p.CPULimit, p.CPURequest = o.CPULimit, o.CPURequest
	p.MemoryLimit, p.MemoryRequest = o.MemoryLimit, o.MemoryRequest
}

// Day is the profiles of one day, by subject.
type Day struct {
	Date     string              `json:"date"` // UTC
	Profiles map[string]*Profile `json:"profiles"`
}

func dateOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// mostProfiles bounds the containers of one day, and of all days before it: some 2 KiB each.
const mostProfiles = 5_000

// Book is the profiles of today and, in one, those of the days before.
type Book struct {
	past  map[string]*Profile
	today Day
}

// Is tells whether now belongs to the book's day.
func (b *Book) Is(now time.Time) bool { return b.today.Date == dateOf(now) }

// Add takes what one sample of all containers added; it gives how many it had no room for.
func (b *Book) Add(now time.Time, steps []Step) (dropped int) {
	for _, s := range steps {
		subject := s.Subject()
		p := b.today.Profiles[subject]
		if p == nil {
			if len(b.today.Profiles) >= mostProfiles {
				dropped++
				continue
			}
			p = newProfile(s.Who, now)
			b.today.Profiles[subject] = p
		}
		p.add(s)
	}
	return dropped
}

// Advise gives what is advised for each subject of today and, with all, for those of the days before that have not run
// today.
func (b *Book) Advise(cfg Config, all bool) map[string]Advice {
	out := make(map[string]Advice, len(b.today.Profiles))
	for subject, p := range b.today.Profiles {
		if before := b.past[subject]; before != nil {
			whole := newProfile(before.Who, before.First)
			whole.merge(before)
			whole.merge(p)
			p = whole
		}
		out[subject] = Advise(p.facts(), cfg.Headroom)
	}
	for subject, p := range b.past {
		if _, ok := out[subject]; !ok && all {
			out[subject] = Advise(p.facts(), cfg.Headroom)
		}
	}
	return out
}
