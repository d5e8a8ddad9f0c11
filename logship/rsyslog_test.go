//go:build kernel

package logship

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestARealRsyslogHasEachLineOnceThroughItsRestart(t *testing.T) {
	r := hosttest.Rsyslog(t)
	dir := t.TempDir()
	c := container.Container{ID: "c0ffee", Name: "shop", Runtime: "docker", Image: "img:1", State: container.Running,
		Labels: map[string]string{"tier": `a"]\`}, Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
	log := func(from, to int) {
		var b strings.Builder
		for i := from; i < to; i++ {
			b.WriteString(cri(fmt.Sprintf("ä\ttab line %d", i)))
		}
		appendTo(t, c.Log.Path, b.String())
	}
	const n = 20_000
	log(0, n)
	s := run(t, dir, both(dir, r.Address), newInventory(c))
	eventually(t, "the first lines", func() bool { return s.sink(0).Acked == n })
	eventually(t, "rsyslogd has read them", func() bool { return len(lines(r.Messages)) == n })
	if err := r.Stop(t.Context()); err != nil { // in good order, so nothing is to be repeated
		t.Fatal(err)
	}
	log(n, 2*n)
	eventually(t, "a try while rsyslogd is away", func() bool { return s.sink(0).Failures > 0 })
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all lines", func() bool { return len(lines(r.Messages)) >= 2*n })
	s.stop()
	got := lines(r.Messages)
	lost, doubled, what := tally(got, 2*n)
	t.Logf("%d lines, %d lost, %d doubled, %d owned up to", len(got), lost, doubled, s.sink(0).Doubled)
	if lost > 0 || doubled > 0 {
		t.Errorf("%d lost, %d doubled: %s", lost, doubled, what)
	}
	want := `<14>1 2026-11-21T09:20:00.123456+00:00 web1 shop - stdout [fairlead@32473 runtime="docker" id="c0ffee" name="shop" image="img:1" label="tier=a\"\]\\"] ` + "ä\ttab line 0"
	if strings.ReplaceAll(got[0], "Z ", "+00:00 ") != want {
		t.Errorf("\n got %s\nwant %s", got[0], want)
	}
}
