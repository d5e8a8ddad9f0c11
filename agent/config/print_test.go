package config

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrintExplainsEveryKey(t *testing.T) {
	t.Parallel()
	v := defaults()
	v.Node.Name = "true" // a name that YAML would read as something else
	v.Overlay.Networks = []network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}, {Name: "red"}}
	var b strings.Builder
	if err := Print(&b, v, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/print.want", b.String())
	b.Reset()
	if err := PrintJSON(&b, &v, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/print.json.want", b.String())
	if !json.Valid([]byte(b.String())) {
		t.Error("not JSON")
	}
}

func TestDurationsArePrintedAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", 10 * time.Minute: "10m", 2 * time.Hour: "2h",
		90 * time.Minute: "1h30m", 10*time.Hour + time.Second: "10h0m1s", 100 * time.Millisecond: "100ms", -time.Minute: "-1m", 10 * time.Second: "10s"} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is printed as %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(shortDuration(d)); back != d || err != nil {
			t.Errorf("%v comes back as %v, %v", d, back, err)
		}
	}
}

func TestDiffNamesTheChangedKeys(t *testing.T) {
	t.Parallel()
	before := defaults()
	before.Logship.Sinks = []sink{{Name: "a", Token: "one"}, {Name: "b"}}
	before.Orphans.Keep = map[string]string{"x": "1", "y": "1"}
	after := before
	if got := Diff(before, &after); got != nil {
		t.Errorf("nothing changed, Diff says %q", got)
	}
	after.Listen = ":9478"
	after.Logship.Sinks = []sink{{Name: "a", Token: "two"}, {Name: "b"}}
	after.Overlay.Networks = []network{{Name: "blue"}}
	after.Orphans.Keep = map[string]string{"x": "2", "y": "1"}
	after.Limit = &limit{}
	want := []string{"listen", "overlay.networks", "logship.sinks[0].token", "orphans.keep.x", "limit"}
	if d := cmp.Diff(want, Diff(before, after)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
