package metrics

import (
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/history"
)

// flavour is a set of forms in which the answer of a scrape is wanted: one bit for each format in each coding, and one
// for what people ask.
type flavour uint8

const (
	codings         = 3
	usages  flavour = 1 << (2 * codings)
	sampled flavour = usages << 1 // for the history
)

// flavourOf gives the flavour of one HTTP answer.
func flavourOf(f expo.Format, c expo.Coding) flavour { return 1 << (int(f)*codings + int(c)) }

// answer is what one scrape gives to all who asked for it.
type answer struct {
	bodies  map[flavour]*body
	spare   *spare
	usage   []Usage
	samples []history.Sample
}

// recycle gives the memory of the bodies back.
func (a *answer) recycle() {
	for _, b := range a.bodies {
		a.spare.put(b)
	}
	a.bodies = nil
}

// encode is what writing a page needs besides the page.
type encode struct {
	encoder expo.Encoder
	text    []byte // what the encoder works in for gzip
	zstd    *zstd.Encoder
	sizes   map[flavour]int // of the last pages: the next ones are made as large at once
	devices devices
	pages   pageSizes
	nodes   numaLabels
	budget  budget
	exclude map[string]bool // groups
}

// sample writes one series of a container, unless it is beyond the budget.
func (s *encode) sample(of *slot, labels *expo.Labels, extra []byte, v float64) {
	if s.budget.take(of.index) {
		s.encoder.Sample(labels, extra, v)
	}
}

// scrape reads everything and writes it in the forms wanted. One runs at a time.
func (m *Metrics) scrape(want flavour) *answer {
	p := m.gather()
	m.counsel(p)
	a := &answer{bodies: map[flavour]*body{}, spare: &m.spare}
	for _, f := range [...]expo.Format{expo.Text, expo.OpenMetrics} {
		for _, c := range [...]expo.Coding{expo.Identity, expo.Gzip, expo.Zstd} {
			if form := flavourOf(f, c); want&form != 0 {
				a.bodies[form] = m.write(p, f, c)
			}
		}
	}
	if want&usages != 0 {
		a.usage = p.usage()
	}
	if want&sampled != 0 {
		a.samples = p.samples()
	}
	m.cost.scrapes.Inc()
	m.cost.containers.Set(float64(len(p.readings)))
	return a
}

// write writes the page. gzip is written at once, in pieces; zstd needs the text first.
func (m *Metrics) write(p *page, f expo.Format, c expo.Coding) *body {
	began := time.Now()
	s := &m.scratch.encode
	first := c
	if c == expo.Zstd {
		first = expo.Identity
	}
	form := flavourOf(f, first)
	b := m.spare.take(s.sizes[form])
	if first == expo.Gzip {
		s.encoder.ResetGzip(f, b.b, s.text)
	} else {
		s.encoder.Reset(f, b.b)
	}
	p.write(s)
	m.writeDisk(s, p)
	for _, fam := range m.deps.Stats.Families() {
		s.encoder.Family(expo.Family{Name: fam.Name, Help: fam.Help, Type: fam.Type})
		for _, sample := range fam.Samples {
			var labels []byte
			for _, l := range sample.Labels {
				labels = expo.AppendLabel(labels, l.Name, l.Value)
			}
			s.encoder.Sample(m.own, labels, sample.Value)
		}
	}
	b.b = s.encoder.Finish()
	if first == expo.Gzip {
		s.text = s.encoder.Text()
	}
	s.sizes[form] = len(b.b)
	m.cost.series.Set(float64(s.encoder.Samples()))
	m.cost.phase("encode", began)
	if c == expo.Zstd {
		plain := b
		b = m.zstd(plain, flavourOf(f, c))
		m.spare.put(plain)
	}
	return b
}

// write writes the containers and the machine. It does not allocate while the encoder's buffer is large enough.
func (p *page) write(s *encode) {
	e := &s.encoder
	s.budget.begin(p.slots)
	s.devices.page++
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
	s.numa(p)
	s.sockets(p)
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
			if v, ok := m.value(c); ok && c.shown(p.at) {
				e.Sample(c.slot.labels, nil, v) // one for each container, of a bounded number: no budget
			}
		}
	}
	for i := range adviceMetrics {
		adviceMetrics[i].write(s, p)
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

// zstd compresses at the fastest level: pages are so repetitive that better ones save little.
func (m *Metrics) zstd(plain *body, form flavour) *body {
	began := time.Now()
	s := &m.scratch.encode
	if s.zstd == nil {
		const farEnough = 1 << 20 // the labels of one container are on the page again after all others of its family
		s.zstd, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(farEnough), zstd.WithLowerEncoderMem(true)) // the options are valid
	}
	out := m.spare.take(s.sizes[form])
	out.b = s.zstd.EncodeAll(plain.b, out.b)
	s.sizes[form] = len(out.b)
	m.cost.phase("zstd", began)
	return out
}
