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

func TestARealRsyslogHasEachLineOnceOverRELPAndTLS(t *testing.T) {
	cert, key := sinktest.Certificate(t)
	for name, test := range map[string]struct {
		kind   daemons.RsyslogInput
		sink   SinkConfig
		scheme string
	}{
		"RELP":          {daemons.RsyslogInput{RELP: true}, SinkConfig{Type: "relp"}, "tcp"},
		"RELPOverTLS":   {daemons.RsyslogInput{RELP: true, Cert: cert, Key: key}, SinkConfig{Type: "relp", TLS: post.TLS{CA: cert}}, "tls"},
		"SyslogOverTLS": {daemons.RsyslogInput{Cert: cert, Key: key}, SinkConfig{Type: "syslog", TLS: post.TLS{CA: cert}}, "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			r := hosttest.RsyslogWith(t, test.kind)
			dir := t.TempDir()
			c := container.Container{ID: "c0ffee", Name: "shop", Runtime: "docker", State: container.Running,
				Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
			log := func(from, to int) {
				var b strings.Builder
				for i := from; i < to; i++ {
					b.WriteString(cri(fmt.Sprintf("ä line %d", i)))
				}
				appendTo(t, c.Log.Path, b.String())
			}
			const n = 10_000
			log(0, n)
			conf := DefaultConfig()
			conf.Pins = filepath.Join(dir, "pins")
			test.sink.Name, test.sink.Address = "s", test.scheme+"://"+r.Address
			conf.Sinks = []SinkConfig{test.sink}
			s := run(t, dir, conf, newInventory(c))
			eventually(t, "the first lines", func() bool { return s.sink(0).Acked == n })
			if err := r.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			log(n, 2*n)
			eventually(t, "a try while rsyslogd is away", func() bool { return s.sink(0).Failures > 0 })
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all lines", func() bool { return s.sink(0).Acked >= 2*n && len(lines(r.Messages)) >= 2*n })
			s.stop()
			got := lines(r.Messages)
			lost, doubled, what := tally(got, 2*n)
			if lost > 0 || doubled > int(s.sink(0).Doubled) {
				t.Errorf("%d lost, %d doubled, %d owned up to: %s", lost, doubled, s.sink(0).Doubled, what)
			}
		})
	}
}
