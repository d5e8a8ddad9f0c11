package cni

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestADelThatCameIntoTheSpoolOfARunningAgentIsServed(t *testing.T) {
	for name, overtaken := range map[string]bool{"alone": false, "overtaken by an ADD that is under way": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &detacher{}
				socket := filepath.Join(t.TempDir(), "cni.sock")
				d := New(socket, n, slog.New(slog.DiscardHandler), &stat.Registry{})
				del := wire.Request{Command: "DEL", ContainerID: "a", IfName: "eth0"}
				file, err := wire.Spool(socket, del)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				end := func() {}
				if overtaken {
					end = d.turns.take(plan.Key{Owner: "a", IfName: "eth0"})
				}
				go func() { _ = d.keepDrained(ctx) }() // ends with ctx
				time.Sleep(spoolEvery + time.Second)
				if overtaken {
					d.forget(del) // as an ADD does
				}
				end()
				synctest.Wait()
				if got, want := n.detached, []string{"a/eth0"}; !overtaken && !slices.Equal(got, want) || overtaken && len(got) > 0 {
					t.Errorf("detached %v", got)
				}
				if _, err := os.Stat(file); err == nil {
					t.Error("the request lies in the spool still")
				}
			})
		})
	}
}

// detacher notes what is detached.
type detacher struct {
	Network
	detached []string
}

func (n *detacher) Detach(_ context.Context, key plan.Key, _ string) error {
	n.detached = append(n.detached, key.String())
	return nil
}
