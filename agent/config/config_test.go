package config

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files anew")

// agentFile has the shapes that the agent's own file has: sections, lists of sections, maps, and every kind of value.
type agentFile struct {
	Node struct {
		Name    string     `yaml:"name" doc:"how other hosts call this one; empty means the host name"`
		Address netip.Addr `yaml:"address" doc:"address by which other hosts reach this one"`
	} `yaml:"node" doc:"Who this host is."`
	Listen  string         `yaml:"listen" doc:"where /metrics and /healthz are served"`
	Overlay overlaySection `yaml:"overlay" doc:"Addresses for containers and paths to the other hosts. This sentence is long enough that the comment needs a second line."`
	Metrics struct{}       `yaml:"metrics"`
	Logship struct {
		Sinks []sink `yaml:"sinks" doc:"where lines go"`
	} `yaml:"logship"`
	Orphans struct {
		Grace time.Duration     `yaml:"grace" doc:"how long an orphan is left alone"`
		Clean bool              `yaml:"clean"`
		Keep  map[string]string `yaml:"keep"`
		Ratio float64           `yaml:"ratio"`
		Kinds []string          `yaml:"kinds"`
	} `yaml:"orphans"`
	Limit *limit `yaml:"limit"`
	base  `yaml:",inline"`
	Built string `yaml:"-"`
}

type base struct {
	RunDir string `yaml:"run_dir"`
}

type limit struct {
	Files int16 `yaml:"files"`
}

type overlaySection struct {
	Store    string    `yaml:"store" doc:"local, static or etcd"`
	Networks []network `yaml:"networks" doc:"one entry for each network"`
}

type network struct {
	Name string       `yaml:"name" doc:"what conflists call it"`
	CIDR netip.Prefix `yaml:"cidr"`
	VNI  uint32       `yaml:"vni" doc:"VXLAN number"`
	Path string       `yaml:"path"`
}

func (n *network) SetDefaults() { n.Path = "auto" }

type sink struct {
	Name    string `yaml:"name"`
	Address string `yaml:"address"`
	Token   string `yaml:"token,omitempty"`
}

func defaults() agentFile {
	var f agentFile
	f.Listen = "127.0.0.1:9478"
	f.Overlay.Store = "local"
	f.Orphans.Grace = 10 * time.Minute
	f.Orphans.Kinds = []string{"link"}
	f.RunDir = "/run/fairlead"
	return f
}

var options = cmp.Options{cmp.AllowUnexported(agentFile{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestWholeFileIsDecodedOverItsDefaults(t *testing.T) {
	t.Parallel()
	got := defaults()
	_, err := Decode("fairlead.yaml", []byte(`
node: {name: web1, address: 192.0.2.11}
overlay:
  networks:
    - {name: blue, cidr: 10.42.0.0/16, vni: 42}
    - {name: "7", cidr: 10.43.0.0/16, vni: 0x2b, path: vxlan}
metrics:            # nothing under it yet
orphans: {grace: 1h30m, clean: true, ratio: 2, keep: {a.b: c}, kinds: []}
limit: {files: 1_000}
run_dir: /tmp/run
`), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Node.Name, want.Node.Address = "web1", netip.MustParseAddr("192.0.2.11")
	want.Overlay.Networks = []network{
		{"blue", netip.MustParsePrefix("10.42.0.0/16"), 42, "auto"},
		{"7", netip.MustParsePrefix("10.43.0.0/16"), 43, "vxlan"},
	}
	want.Orphans.Grace, want.Orphans.Clean, want.Orphans.Ratio = 90*time.Minute, true, 2
	want.Orphans.Keep, want.Orphans.Kinds = map[string]string{"a.b": "c"}, nil
	want.Limit = &limit{Files: 1000}
	want.RunDir = "/tmp/run"
	if d := cmp.Diff(want, got, options); d != "" {
		t.Errorf("decoded otherwise (-want +got):\n%s", d)
	}
}

func TestFileWithoutContentLeavesTheDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}", "null", "overlay:\nnode:\n", "\ufeff"} {
		got := defaults()
		if _, err := Decode("f", []byte(text), &got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(defaults(), got, options); d != "" {
			t.Errorf("%q changed the defaults:\n%s", text, d)
		}
	}
}

func TestBrokenFilesAreExplained(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d golden files: %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		into := defaults()
		_, err = Decode(filepath.Base(name), text, &into)
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		golden(t, strings.TrimSuffix(name, ".yaml")+".want", err.Error()+"\n")
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func TestGoodKeysAreDecodedBesideBrokenOnes(t *testing.T) {
	t.Parallel()
	into := defaults()
	_, err := Decode("f", []byte("node: {name: web1}\norphans: {grace: soon}\n"), &into)
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "orphans.grace" || ps[0].Line != 2 {
		t.Errorf("problems: %#v", err)
	}
	if into.Node.Name != "web1" || into.Orphans.Grace != 10*time.Minute {
		t.Errorf("decoded %q, %v", into.Node.Name, into.Orphans.Grace)
	}
}

func TestSyntaxErrorNamesTheLineWhereReadingStops(t *testing.T) {
	t.Parallel()
	for text, line := range map[string]int{
		"x:\n  y:\n    a: 1\n   b: 2\nc: 1\n":       4, // the parser says 1
		"x:\n  a: [1,\n    2]\n  b: 1\n c: 1\nd: 1": 5, // a good list over two lines comes first
		"a: 1\nb: c: d\n":                           2,
		"a: {b: ${env:X}}\n":                        1,
		"a: 1\nb:\n\tc: 1\n":                        3,
		"a: 1\nb: \"x\n\nc: 1\n":                    2,
		"\x00":                                      1,
		"a: 1\n# \xff\n":                            2,
	} {
		var into agentFile
		_, err := Decode("f", []byte(text), &into)
		var p Problem
		if !errors.As(err, &p) || p.Line != line {
			t.Errorf("%q: want line %d, got: %v", text, line, err)
		}
	}
}
