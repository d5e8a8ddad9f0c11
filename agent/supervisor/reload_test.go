package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/google/go-cmp/cmp"
)

func TestReloadAppliesWhatItCanAndNamesTheRest(t *testing.T) {
	t.Parallel()
	var called []string
	reloader := func(part string, apply func() error, keys ...string) Reloader {
		return Reloader{Part: part, Keys: keys, Apply: func(context.Context) error { called = append(called, part); return apply() }}
	}
	ok := func() error { return nil }
	s := New(slog.New(slog.DiscardHandler), new(stat.Registry))
	got, err := s.Reload(t.Context(),
		[]string{"listen", "overlay.peers", "logship.sinks[0].address", "logship.sinks[1]", "orphans.grace", "logship.sinksx", "metrics.a"},
		reloader("logship", ok, "logship.sinks", "logship.files"),
		reloader("overlay", func() error { panic("nil map") }, "overlay.peers"),
		reloader("orphans", func() error { return errors.New("too short") }, "orphans"),
		reloader("volumes", ok, "volumes"),
		reloader("metrics", ok, "metrics"))
	want := Reloaded{
		Applied: []string{"logship.sinks[0].address", "logship.sinks[1]", "metrics.a"},
		Restart: []string{"listen", "logship.sinksx"},
		Failed:  []string{"overlay.peers", "orphans.grace"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"logship", "overlay", "orphans", "metrics"}, called); d != "" {
		t.Errorf("called (-want +got):\n%s", d)
	}
	if err == nil || err.Error() != "reload overlay: panic: nil map\nreload orphans: too short" {
		t.Errorf("error %v", err)
	}
}
