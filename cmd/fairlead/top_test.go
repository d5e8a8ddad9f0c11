package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/metrics"
	"github.com/fairlead-dev/fairlead/metrics/history"
)

func busy(name string, cores float64, memory uint64) psRow {
	return psRow{
		Container: container.Container{ID: container.ID(strings.Repeat("f", 64)), Name: name, Runtime: "containerd", State: container.Running, Image: "registry.example/team/app:1.2.3"},
		CPUs:      &cores, Usage: &metrics.Usage{MemoryBytes: &memory, MemoryLimitBytes: new(uint64(1 << 40)), CPULimit: new(12.5), Threads: new(memory)},
	}
}

func TestTopShowsTheBusiestFirstAndFitsTheScreen(t *testing.T) {
	t.Parallel()
	rows := []psRow{busy("idle", 0, 3), busy(strings.Repeat("long-", 30), 2, 1), busy("bus\x1b[2Jy", 1, 2)}
	for by, want := range map[string]string{"cpu": "long-,bus,idle", "memory": "idle,bus,long-", "threads": "idle,bus,long-", "name": "bus,idle,long-"} {
		picture := topPicture(rows, by, time.Unix(0, 0).UTC(), 80, 24)
		lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
		var got []string
		for _, line := range lines[2:] {
			for _, name := range []string{"long-", "bus", "idle"} {
				if strings.HasPrefix(line, name) {
					got = append(got, name)
				}
			}
		}
		if strings.Join(got, ",") != want {
			t.Errorf("by %s: %q, want %s", by, got, want)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
			}
		}
		if strings.Contains(picture, "\x1b") {
			t.Error("a name steers the terminal")
		}
	}
	for n, want := range []string{"  0 containers  ", "  1 container  ", "  2 containers  "} {
		if picture := topPicture(rows[:n], "cpu", time.Now(), 80, 24); !strings.Contains(picture, want) {
			t.Errorf("no %q in %s", want, picture)
		}
	}
	if n := strings.Count(topPicture(rows, "cpu", time.Now(), 80, 4), "\n"); n != 4 {
		t.Errorf("%d lines on a screen of 4", n)
	}
}

func TestPsFitsTheScreen(t *testing.T) {
	t.Parallel()
	header := strings.Fields("ID NAME RUNTIME STATE ADDRESS CPU MEMORY IMAGE")
	rows := func() [][]string {
		return [][]string{
			{"ffffffffffff", "a-rather-long-name-of-a-container", "containerd", "running", "10.42.0.17", "0.02 of 0.5", "101.2MiB of 512.0MiB", "registry.example/team/app:1.2.3"},
			{"eeeeeeeeeeee", "web", "docker", "running", "", "0.00", "1.0MiB", "bb:1"},
		}
	}
	for _, width := range []int{80, 100, 120} {
		var b strings.Builder
		shown, cells := fit(header, rows(), width)
		table(&b, strings.Join(shown, " "), cells)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("%d columns instead of %d: %s", n, width, line)
			}
		}
	}
	if _, got := fit(header, rows(), 0); fmt.Sprint(got) != fmt.Sprint(rows()) {
		t.Errorf("without a bound: %s", got)
	}
}

func TestMomentsArePeoplesOwn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "7d": now.AddDate(0, 0, -7), "1.5d": now.Add(-36 * time.Hour),
		"2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), "2026-11-20T08:00:00Z": time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1h", "yesterday", "-3d", "2026-13-01"} {
		if _, err := parseSince(text, now); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestUsageSaysWhatIsNotIn(t *testing.T) {
	t.Parallel()
	rows := []history.Row{{}, {Missing: []string{history.NoBegin, history.NoMemory}}, {Missing: []string{history.NoBegin}}}
	want := "! more was used than the row says: 2 ran before the records begin; 1 had no\nknown memory for a time\n"
	if got := lacking(rows); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := lacking(rows[:1]); got != "" {
		t.Errorf("of whole rows: %q", got)
	}
	for _, what := range []string{history.NoBegin, history.NoEnd, history.NoMemory, history.NoNetwork, history.Reset} {
		if lacking([]history.Row{{Missing: []string{what}}}) == "" {
			t.Errorf("no words for %s", what)
		}
	}
}
