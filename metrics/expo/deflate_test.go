package expo

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	klauspost "github.com/klauspost/compress/gzip"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// both writes the same page twice and gives its text and what its gzip form unpacks to.
func both(t testing.TB, f Format, write func(e *Encoder)) (plain, unpacked []byte, packed int) {
	t.Helper()
	var e, z Encoder
	e.Reset(f, nil)
	write(&e)
	plain = e.Finish()
	z.ResetGzip(f, nil, make([]byte, 0, PieceSize))
	write(&z)
	out := z.Finish()
	r, err := gzip.NewReader(bytes.NewReader(out))
	if err == nil {
		unpacked, err = io.ReadAll(r) // checks the sum
	}
	if err != nil {
		t.Fatal(err)
	}
	return plain, unpacked, len(out)
}

func TestTheGzipFormIsTheSamePage(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		for _, f := range []Format{Text, OpenMetrics} {
			ls := someLabels(rand.New(rand.NewPCG(seed, 1)))
			plain, unpacked, _ := both(t, f, func(e *Encoder) { somePage(e, rand.New(rand.NewPCG(seed, 2)), ls) })
			if !bytes.Equal(plain, unpacked) {
				t.Fatalf("seed %d: %d bytes unpack to %d that differ at %d", seed, len(plain), len(unpacked), common(plain, unpacked))
			}
		}
	}
}

// someLabels are alike, not alike at all, short, empty, and longer than deflate can look back.
func someLabels(r *rand.Rand) []*Labels {
	var out []*Labels
	for i := range 1 + r.IntN(40) {
		var b []byte
		switch r.IntN(8) {
		case 0:
			b = AppendLabel(b, "name", strings.Repeat("x", r.IntN(700)))
		case 1:
			b = AppendLabel(b, "name", strings.Repeat(fmt.Sprint("ü\"", r.Uint64()), r.IntN(2500)))
		case 2:
		default:
			id := fmt.Sprintf("%064x", r.Uint64())
			b = AppendLabel(AppendLabel(AppendLabel(b, "id", "/default/"+id), "image", "docker.io/library/busybox:latest"), "name", id)
		}
		l := NewLabels(b)
		if i%2 == 0 {
			l.Since(time.UnixMilli(r.Int64N(1 << 40)))
		}
		out = append(out, l)
	}
	return out
}

// somePage leaves out some series, and gives some extra labels, of which a few come again and again.
func somePage(e *Encoder, r *rand.Rand, ls []*Labels) {
	extras := [][]byte{nil, nil, []byte(`cpu="total"`), []byte(`device="/dev/vda"`), []byte(`device="/dev/vdb"`), []byte(`a=""`)}
	for i := range r.IntN(30) {
		name := fmt.Sprint("container_", strings.Repeat("long_", r.IntN(80)), i, []string{"_total", ""}[r.IntN(2)])
		e.Family(Family{Name: name, Help: "Says \\ nothing.", Type: []stat.Type{stat.TypeCounter, stat.TypeGauge}[r.IntN(2)]})
		skip := r.IntN(5)
		for _, l := range ls {
			if r.IntN(5) < skip {
				continue
			}
			for range 1 + r.IntN(3) {
				e.Sample(l, extras[r.IntN(len(extras))], float64(r.IntN(1e6))/float64(1+r.IntN(2)))
			}
		}
		e.Sample(nil, extras[r.IntN(len(extras))], 1)
	}
}

func TestTheGzipFormIsAsSmallAsThatOfACompressor(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	var ls []*Labels
	for range 300 {
		id := fmt.Sprintf("%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
		ls = append(ls, NewLabels(AppendLabel(AppendLabel(AppendLabel(nil, "id", "/default/"+id), "image", "docker.io/library/busybox:latest"), "name", id)))
	}
	plain, _, packed := both(t, Text, func(e *Encoder) { typicalPage(e, ls) })
	var theirs bytes.Buffer
	z, _ := gzip.NewWriterLevel(&theirs, gzip.BestSpeed)
	_, _ = z.Write(plain)
	_ = z.Close()
	t.Logf("%d bytes: %d, with compress/gzip %d", len(plain), packed, theirs.Len())
	if packed > theirs.Len()*11/10 {
		t.Errorf("%d bytes: %d, with compress/gzip %d", len(plain), packed, theirs.Len())
	}
}

func typicalPage(e *Encoder, ls []*Labels) {
	for i := range 60 {
		e.Family(Family{Name: fmt.Sprintf("container_number_%d_seconds_total", i), Help: "What it is, from where.", Type: stat.TypeCounter})
		for j, l := range ls {
			e.Sample(l, nil, float64(i*j))
		}
	}
}

func FuzzTheGzipFormIsTheSamePage(f *testing.F) {
	f.Add(`id="/a",name="a"`, `id="/b",name="b"`, `x="y"`, "container_a_total", 1.5)
	f.Add(``, `aaaaaaaaaaaaaaaaaaaaaaaa`, ``, "a", 0.0)
	f.Fuzz(func(t *testing.T, a, b, extra, name string, v float64) {
		family := Family{Name: name, Help: a, Type: stat.TypeCounter}
		ls := []*Labels{NewLabels([]byte(a)), NewLabels([]byte(b)).Since(time.Unix(1, 0)), NewLabels([]byte(a + b))}
		x := []byte(extra)
		plain, unpacked, _ := both(t, OpenMetrics, func(e *Encoder) {
			for range 3 {
				e.Family(family)
				for _, l := range ls {
					e.Sample(l, x, v)
					e.Sample(l, nil, v)
				}
			}
		})
		if !bytes.Equal(plain, unpacked) {
			t.Errorf("%q became %q", plain, unpacked)
		}
	})
}

// BenchmarkGzip writes one page in gzip form: as the Encoder does it, and as text that a compressor of the same kind then
// packs at its fastest.
func BenchmarkGzip(b *testing.B) {
	var ls []*Labels
	for i := range 500 {
		id := fmt.Sprintf("%064x", uint64(i)*0x9e3779b97f4a7c15)
		ls = append(ls, NewLabels(AppendLabel(AppendLabel(AppendLabel(nil, "id", "/default/"+id), "image", "busybox"), "name", id)))
	}
	var e Encoder
	out, text := make([]byte, 0, 8<<20), make([]byte, 0, PieceSize)
	compressed := func(z interface {
		io.WriteCloser
		Reset(io.Writer)
	}) func() int {
		var packed bytes.Buffer
		return func() int {
			e.Reset(Text, out)
			typicalPage(&e, ls)
			out = e.Finish()
			packed.Reset()
			z.Reset(&packed)
			_, _ = z.Write(out)
			_ = z.Close()
			return packed.Len()
		}
	}
	theirs, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	fastest, _ := klauspost.NewWriterLevel(nil, klauspost.BestSpeed)
	for name, page := range map[string]func() int{
		"ours": func() int {
			e.ResetGzip(Text, out, text)
			typicalPage(&e, ls)
			out, text = e.Finish(), e.Text()
			return len(out)
		},
		"compress_gzip": compressed(theirs),
		"klauspost":     compressed(fastest),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				size = page()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500/60, "ns/series")
			b.ReportMetric(float64(size)/500/60, "B/series")
		})
	}
}

// The budget: a page of 500 containers and 60 families, plain or in gzip form, without one allocation once its memory is
// there.
func TestAPageIsWrittenWithoutAllocating(t *testing.T) {
	var ls []*Labels
	for i := range 500 {
		ls = append(ls, NewLabels(AppendLabel(nil, "id", fmt.Sprintf("/default/%064x", uint64(i)*0x9e3779b97f4a7c15))).Since(time.Unix(1, 0)))
	}
	names := make([]Family, 60)
	for i := range names {
		names[i] = Family{Name: fmt.Sprintf("container_number_%d_seconds_total", i), Help: "What it is, from where.", Type: stat.TypeCounter}
	}
	var e Encoder
	out, text := make([]byte, 0, 16<<20), make([]byte, 0, PieceSize)
	for _, gzipped := range []bool{false, true} {
		if n := testing.AllocsPerRun(3, func() {
			if gzipped {
				e.ResetGzip(OpenMetrics, out, text)
			} else {
				e.Reset(OpenMetrics, out)
			}
			for _, f := range names {
				e.Family(f)
				for i, l := range ls {
					e.Sample(l, nil, float64(i)+0.25)
				}
			}
			e.Finish()
		}); n != 0 {
			t.Errorf("gzip %v: %v allocations a page", gzipped, n)
		}
	}
}
