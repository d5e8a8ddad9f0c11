//go:build kernel

package logship

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestARealSyslogNGHasEachLineOnce(t *testing.T) {
	cert, key := sinktest.Certificate(t)
	for transport, secure := range map[string]post.TLS{"tcp": {}, "tls": {CA: cert}, "udp": {}} {
		t.Run(transport, func(t *testing.T) {
			r := hosttest.SyslogNG(t, daemons.SyslogNGInput{Transport: transport, Cert: cert, Key: key})
			dir := t.TempDir()
			c := container.Container{ID: "c0ffee", Name: "shop", Runtime: "docker", State: container.Running,
				Labels: map[string]string{"tier": `a"]\`}, Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
			sent := 0
			log := func(n int) {
				var b strings.Builder
				for range n {
					b.WriteString(cri(fmt.Sprintf("ä\ttab line %d", sent)))
					sent++
				}
				appendTo(t, c.Log.Path, b.String())
			}
			written := func() bool { return len(lines(r.Messages)) >= sent }
			conf := DefaultConfig()
			conf.Pins = filepath.Join(dir, "pins")
			conf.Sinks = []SinkConfig{{Name: "s", Type: "syslog", Address: transport + "://" + r.Address, TLS: secure}}
			s := run(t, dir, conf, newInventory(c))
			if transport == "udp" { // nobody waits for a receiver that is slow or away, so no more than its buffer holds
				for range 40 {
					log(50)
					eventually(t, "syslog-ng has written them", written)
				}
			} else {
				log(10_000)
				eventually(t, "syslog-ng has written them", written)
				if err := r.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				log(10_000)
				eventually(t, "a try while syslog-ng is away", func() bool { return s.sink(0).Failures > 0 })
				if err := r.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				eventually(t, "all lines", written)
			}
			s.stop()
			if err := r.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := lines(r.Messages)
			lost, doubled, what := tally(got, sent)
			t.Logf("%d lines, %d lost, %d doubled, %d owned up to", len(got), lost, doubled, s.sink(0).Doubled)
			if lost > 0 || doubled > int(s.sink(0).Doubled) {
				t.Errorf("%d lost, %d doubled, %d owned up to: %s", lost, doubled, s.sink(0).Doubled, what)
			}
			want := `<14>1 2026-11-21T09:20:00.123456+00:00 web1 shop - stdout [fairlead@32473 runtime="docker" id="c0ffee" name="shop" label="tier=a\"\]\\"] ` + "ä\ttab line 0"
			if got[0] != want {
				t.Errorf("\n got %s\nwant %s", got[0], want)
			}
		})
	}
}
