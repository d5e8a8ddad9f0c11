package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/metrics"
)

// known gives the name of every metric that an agent with all its parts shows.
func known(t *testing.T) map[string]bool {
	t.Helper()
	f := defaultFile()
	f.RunDir, f.StateDir, f.Metrics.History.On = t.TempDir(), t.TempDir(), true
	f.Logship.Sinks = []logship.SinkConfig{{Name: "copy", Type: "file", Path: filepath.Join(t.TempDir(), "copy.log")}}
	d, err := newDaemon(f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"up": true}
	for _, m := range metrics.Table() {
		names[m.Name] = true
	}
	for _, f := range d.stats.Families() {
		names[f.Name] = true
	}
	// Registered when the supervisor runs the parts, or when the first request comes.
	for _, name := range []string{"fairlead_supervisor_up", "fairlead_supervisor_restarts_total", "fairlead_overlay_cni_requests_total"} {
		names[name] = true
	}
	return names
}

var (
	ignored   = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\b(by|on|without|group_left|group_right|ignoring) *\([^)]*\)`)
	word      = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*( *\()?`)
	operators = []string{"and", "or", "unless", "bool", "offset", "inf", "nan", "e9"}
)

// metricNames gives the metrics that a PromQL expression asks for.
func metricNames(expr string) []string {
	var out []string
	for _, w := range word.FindAllString(ignored.ReplaceAllString(expr, " "), -1) {
		if !strings.HasSuffix(w, "(") && !slices.Contains(operators, w) {
			out = append(out, w)
		}
	}
	return out
}

func TestMetricNamesOfAnExpression(t *testing.T) {
	t.Parallel()
	got := metricNames(`sum by (a) (rate(x_total{name!=""}[5m])) / on (b) (y:z > 1e9) or up{job="q"} == 0`)
	if want := []string{"x_total", "y:z", "up"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryMetricOfTheRulesExists(t *testing.T) {
	t.Parallel()
	names := known(t)
	files, err := filepath.Glob("../../deploy/prometheus/*.rules.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("rules: %q, %v", files, err)
	}
	type ruleFile struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	exprs := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rules ruleFile
		if err := yaml.Unmarshal(text, &rules); err != nil {
			t.Fatal(err)
		}
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if r.Record != "" {
					names[r.Record] = true
				}
				exprs[r.Alert+r.Record] = r.Expr
			}
		}
	}
	for rule, expr := range exprs {
		asked := metricNames(expr)
		if len(asked) == 0 {
			t.Errorf("%s asks for nothing", rule)
		}
		for _, name := range asked {
			if !names[name] {
				t.Errorf("%s asks for %s, which no agent shows", rule, name)
			}
		}
	}
}

func TestEveryMetricOfTheDashboardsExists(t *testing.T) {
	t.Parallel()
	names := known(t)
	files, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("dashboards: %q, %v", files, err)
	}
	uids := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			UID, Title string
			Templating struct {
				List []struct{ Name, Type string }
			}
			Panels []struct {
				ID          int
				Type, Title string
				GridPos     struct{ X, Y, W, H int }
				Targets     []struct{ Expr, RefID string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if uids[d.UID] || d.UID == "" || d.Title == "" {
			t.Errorf("%s: uid %q, title %q", file, d.UID, d.Title)
		}
		uids[d.UID] = true
		ids, cells := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have id %d", file, p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q lies over %q or beyond the edge", file, p.Title, other)
					}
					cells[[2]int{x, y}] = p.Title
				}
			}
			if (p.Type == "row") == (len(p.Targets) > 0) {
				t.Errorf("%s: %s %q has %d targets", file, p.Type, p.Title, len(p.Targets))
			}
			for _, target := range p.Targets {
				for _, v := range regexp.MustCompile(`\$([a-z]+)`).FindAllStringSubmatch(target.Expr, -1) {
					if !slices.ContainsFunc(d.Templating.List, func(l struct{ Name, Type string }) bool { return l.Name == v[1] }) {
						t.Errorf("%s: %q uses $%s, which is not a variable", file, p.Title, v[1])
					}
				}
				for _, name := range metricNames(target.Expr) {
					if !names[name] {
						t.Errorf("%s: %q asks for %s, which no agent shows", file, p.Title, name)
					}
				}
			}
		}
	}
}
