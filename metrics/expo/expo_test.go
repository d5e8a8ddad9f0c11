package expo

import (
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

func example(f Format) string {
	var e Encoder
	e.Reset(f, []byte("left over"))
	e.Family(Family{Name: "container_cpu_usage_seconds_total", Help: `CPU "time" \ used.`, Type: stat.TypeCounter, Unit: "seconds"})
	web := NewLabels(AppendLabel(nil, "name", "we\"b\\\nü"))
	e.Sample(web, []byte(`cpu="total"`), 1.5)
	e.Sample(web, nil, 2)
	e.Family(Family{Name: "never_seen", Help: "Has no series.", Type: stat.TypeGauge})
	e.Family(Family{Name: "container_memory_failcnt", Help: "x", Type: stat.TypeCounter})
	e.Sample(nil, []byte(`a="b"`), math.Inf(1))
	e.Family(Family{Name: "machine_memory_bytes", Help: "y", Type: stat.TypeGauge, Unit: "bytes"})
	e.Sample(nil, nil, 24684092*1024)
	e.Family(Family{Name: "container_spec_cpu_quota", Help: "z", Type: stat.TypeGauge, Unit: "bytes"})
	e.Sample(nil, nil, math.NaN())
	return string(e.Finish())
}

func TestTheTextFormatReadsAsPrometheusExpects(t *testing.T) {
	t.Parallel()
	want := `# HELP container_cpu_usage_seconds_total CPU "time" \\ used.
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{name="we\"b\\\nü",cpu="total"} 1.5
container_cpu_usage_seconds_total{name="we\"b\\\nü"} 2
# HELP container_memory_failcnt x
# TYPE container_memory_failcnt counter
container_memory_failcnt{a="b"} +Inf
# HELP machine_memory_bytes y
# TYPE machine_memory_bytes gauge
machine_memory_bytes 25276510208
# HELP container_spec_cpu_quota z
# TYPE container_spec_cpu_quota gauge
container_spec_cpu_quota NaN
`
	if diff := cmp.Diff(want, example(Text)); diff != "" {
		t.Error(diff)
	}
}

func TestOpenMetricsKeepsTheNamesOfSeriesAndEndsWithEOF(t *testing.T) {
	t.Parallel()
	want := `# HELP container_cpu_usage_seconds CPU \"time\" \\ used.
# TYPE container_cpu_usage_seconds counter
# UNIT container_cpu_usage_seconds seconds
container_cpu_usage_seconds_total{name="we\"b\\\nü",cpu="total"} 1.5
container_cpu_usage_seconds_total{name="we\"b\\\nü"} 2
# HELP container_memory_failcnt x
# TYPE container_memory_failcnt unknown
container_memory_failcnt{a="b"} +Inf
# HELP machine_memory_bytes y
# TYPE machine_memory_bytes gauge
# UNIT machine_memory_bytes bytes
machine_memory_bytes 25276510208
# HELP container_spec_cpu_quota z
# TYPE container_spec_cpu_quota gauge
container_spec_cpu_quota NaN
# EOF
`
	if diff := cmp.Diff(want, example(OpenMetrics)); diff != "" {
		t.Error(diff)
	}
}

func TestAcceptDecidesTheFormat(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]Format{
		"":                             Text,
		"*/*":                          Text,
		"text/plain":                   Text,
		"image/png":                    Text,
		"application/openmetrics-text": OpenMetrics,
		"application/openmetrics-text; version=1.0.0; charset=utf-8":        OpenMetrics,
		"application/openmetrics-text;version=7.0.0,text/plain;q=0.1":       Text,
		"application/openmetrics-text;q=0,text/plain;q=0.1":                 Text,
		"application/openmetrics-text;q=0.3,text/plain;version=0.0.4;q=0.5": Text,
		// Prometheus 2 and 3
		"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2":                                                                                                                                                                 OpenMetrics,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3": OpenMetrics,
	} {
		if got := Negotiate(accept); got != want {
			t.Errorf("%q: got %v, want %v", accept, got.ContentType(), want.ContentType())
		}
	}
	for header, want := range map[string]Coding{
		"": Identity, "gzip": Gzip, "deflate, GZIP;q=0.5": Gzip, "gzip;q=0": Identity, "identity": Identity, "br": Identity,
		"zstd": Zstd, "zstd, gzip": Gzip, "gzip, zstd": Gzip, "gzip;q=0.5, zstd;q=0.8": Zstd, "zstd;q=0, gzip;q=0": Identity,
	} {
		if got := NegotiateCoding(header); got != want {
			t.Errorf("Accept-Encoding %q: %v", header, got)
		}
	}
}

func TestSamplesAreEncodedWithoutAllocating(t *testing.T) {
	labels := NewLabels(AppendLabel(AppendLabel(nil, "id", "/docker/abc"), "name", "web"))
	family := Family{Name: "container_cpu_usage_seconds_total", Help: "h", Type: stat.TypeCounter, Unit: "seconds"}
	buf := make([]byte, 0, 1<<20)
	var e Encoder
	if n := testing.AllocsPerRun(20, func() {
		e.Reset(Text, buf)
		e.Family(family)
		for i := range 1000 {
			e.Sample(labels, nil, float64(i)+0.123456789)
		}
		e.Finish()
	}); n != 0 {
		t.Errorf("%v allocations a page", n)
	}
}

func FuzzLabelValuesComeBackAsTheyWere(f *testing.F) {
	for _, s := range []string{"", `"`, `\`, "\n", `\n`, "ü", "\xff", `"},x{`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := string(AppendLabel(nil, "l", value))
		inner, ok := strings.CutPrefix(got, `l="`)
		inner, ok2 := strings.CutSuffix(inner, `"`)
		if !ok || !ok2 || strings.Contains(inner, "\n") || !utf8.ValidString(got) {
			t.Fatalf("%q", got)
		}
		back := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(inner)
		if want := strings.ToValidUTF8(value, "\uFFFD"); back != want {
			t.Errorf("%q became %q", want, back)
		}
		for i := 0; i < len(inner); i++ {
			switch inner[i] {
			case '\\':
				i++
			case '"':
				t.Fatalf("a quote ends the value early: %q", got)
			}
		}
	})
}
