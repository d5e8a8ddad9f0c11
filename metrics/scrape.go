package metrics

import (
	"bytes"
	"compress/gzip"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// flavour is a set of forms in which the answer of a scrape is wanted.
type flavour uint8

const (
	plainText flavour = 1 << iota
	gzipText
	plainOpenMetrics
	gzipOpenMetrics
	usages
)

// flavourOf gives the flavour of one HTTP answer.
func flavourOf(f expo.Format, gzipped bool) flavour {
	switch {
	case f == expo.OpenMetrics && gzipped:
		return gzipOpenMetrics
	case f == expo.OpenMetrics:
		return plainOpenMetrics
	case gzipped:
		return gzipText
	}
	return plainText
}

// answer is what one scrape gives to all who asked for it.
type answer struct {
	bodies map[flavour]*body
	usage  []Usage
}

// body is one HTTP body in memory that is used again.
type body struct{ b []byte }

var bodies = sync.Pool{New: func() any { return new(body) }}

// takeBody gives an empty body with room for somewhat more than size bytes.
func takeBody(size int) *body {
	b := bodies.Get().(*body)
	if cap(b.b) < size {
		b.b = make([]byte, 0, size+size/8)
	}
	b.b = b.b[:0]
	return b
}

// recycle gives the memory of the bodies back.
func (a *answer) recycle() {
	for _, b := range a.bodies {
		bodies.Put(b)
	}
	a.bodies = nil
}

// encode is what writing a page needs besides the page.
type encode struct {
	encoder expo.Encoder
	gzip    *gzip.Writer
	// The sizes of the last page and of its gzip form: the next ones are made as large at once.
	size, zipped int
	devices      devices
	sizes        pageSizes
	budget       budget
	exclude      map[string]bool // groups
}

// sample writes one series of a container, unless it is beyond the budget.
func (s *encode) sample(of *slot, labels, extra []byte, v float64) {
	if s.budget.take(of.index) {
		s.encoder.Sample(labels, extra, v)
	}
}

// scrape reads everything and writes it in the forms wanted. One runs at a time.
func (m *Metrics) scrape(want flavour) *answer {
	p := m.gather()
	a := &answer{bodies: map[flavour]*body{}}
	for _, f := range [...]expo.Format{expo.Text, expo.OpenMetrics} {
		plain, gzipped := flavourOf(f, false), flavourOf(f, true)
		if want&(plain|gzipped) == 0 {
			continue
		}
		b := m.write(p, f)
		if want&gzipped != 0 {
			a.bodies[gzipped] = m.compress(b)
		}
		if want&plain != 0 {
			a.bodies[plain] = b
		} else {
			bodies.Put(b)
		}
	}
	if want&usages != 0 {
		a.usage = p.usage()
	}
	m.cost.scrapes.Inc()
	m.cost.containers.Set(float64(len(p.readings)))
	return a
}

func (m *Metrics) write(p *page, f expo.Format) *body {
	began := time.Now()
	s := &m.scratch.encode
	b := takeBody(s.size)
	s.encoder.Reset(f, b.b)
	p.write(s)
	for _, fam := range m.deps.Stats.Families() {
		s.encoder.Family(expo.Family{Name: fam.Name, Help: fam.Help, Type: fam.Type})
		for _, sample := range fam.Samples {
			var labels []byte
			for _, l := range sample.Labels {
				labels = expo.AppendLabel(labels, l.Name, l.Value)
			}
			s.encoder.Sample(labels, nil, sample.Value)
		}
	}
	b.b = s.encoder.Finish()
	s.size = len(b.b)
	m.cost.series.Set(float64(s.encoder.Samples()))
	m.cost.phase("encode", began)
	return b
}

// write writes the containers and the machine. It does not allocate while the encoder's buffer is large enough.
func (p *page) write(s *encode) {
	e := &s.encoder
	s.budget.begin(p.slots)
	for i := range containerMetrics {
		m := &containerMetrics[i]
		if s.exclude[m.Group] {
			continue
		}
		if i == 0 || m.Name != containerMetrics[i-1].Name {
			e.Family(m.Family)
		}
		for j := range p.readings {
			r := &p.readings[j]
			if v, ok := m.value(p, r); ok {
				s.sample(r.slot, r.slot.labels, m.extra, v)
			}
		}
	}
	for i := range deviceMetrics {
		if !s.exclude[deviceMetrics[i].Group] {
			deviceMetrics[i].write(s, p)
		}
	}
	for i := range hugeMetrics {
		if !s.exclude[hugeMetrics[i].Group] {
			hugeMetrics[i].write(s, p)
		}
	}
	for i := range networkMetrics {
		m := &networkMetrics[i]
		if s.exclude[m.Group] {
			break
		}
		e.Family(m.Family)
		for j := range p.net {
			n := &p.net[j]
			s.sample(n.slot, n.labels, nil, float64(m.value(&n.counters)))
		}
	}
	for i := range endedMetrics {
		m := &endedMetrics[i]
		if s.exclude[m.Group] {
			break
		}
		e.Family(m.Family)
		for _, c := range p.ended {
			if p.at.After(c.until) {
				continue
			}
			if v, ok := m.value(c); ok {
				e.Sample(c.slot.labels, nil, v) // one for each container, of a bounded number: no budget
			}
		}
	}
	for i := range machineMetrics {
		m := &machineMetrics[i]
		if s.exclude[m.Group] {
			break
		}
		e.Family(m.Family)
		if v := m.value(&p.machine); v != nil {
			e.Sample(p.machineLabels, nil, float64(*v))
		}
	}
}

// compress uses the fastest level: pages are so repetitive that better ones save little and cost more than reading the
// cgroups does.
func (m *Metrics) compress(plain *body) *body {
	began := time.Now()
	s := &m.scratch.encode
	out := takeBody(s.zipped)
	buf := bytes.NewBuffer(out.b)
	if s.gzip == nil {
		s.gzip, _ = gzip.NewWriterLevel(buf, gzip.BestSpeed) // the level is valid
	} else {
		s.gzip.Reset(buf)
	}
	_, _ = s.gzip.Write(plain.b) // a bytes.Buffer takes everything
	_ = s.gzip.Close()
	out.b = buf.Bytes()
	s.zipped = len(out.b)
	m.cost.phase("gzip", began)
	return out
}
