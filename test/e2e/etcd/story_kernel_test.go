//go:build kernel

package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fl-etcd-")
	if err == nil {
		bin, err = Build(context.Background(), dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = os.RemoveAll(dir) // binaries only
	os.Exit(code)
}

// story is a world of a test.
type story struct {
	*World
	t *testing.T
}

// begin makes a world that ends with the test. networks is the configuration's, as YAML; empty: the default.
func begin(t *testing.T, networks string, names ...string) *story {
	t.Helper()
	hosttest.Root(t)
	hosttest.Require(t, "etcd", "etcdctl", "ip", "nft", "nsenter", "ping", "bridge")
	w, err := New(t.Context(), bin, names...)
	w.networks = networks
	t.Cleanup(func() {
		for _, n := range w.Nodes {
			if b, err := os.ReadFile(n.Log()); t.Failed() && err == nil {
				t.Logf("agent of %s:\n%s", n.Name, b)
			}
		}
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return &story{w, t}
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// join starts agents and gives each host a container, called as the host with a c before it.
func (s *story) join(network string, nodes ...*Node) {
	s.t.Helper()
	for _, n := range nodes {
		s.must(n.Start())
	}
	for _, n := range nodes {
		s.holds(n, network)
		s.must(n.Add(s.t.Context(), "c-"+n.Name, network))
	}
}

func (s *story) holds(n *Node, network string) {
	s.t.Helper()
	s.until(n, network, "it holds a block", func(w Network) bool { return len(w.Blocks) > 0 })
}

// bound is how long anything may take here; what is asked for is told, or judged where a test says so.
func bound() time.Duration { return hosttest.Bound(time.Minute) }

// settled waits until every kernel has what the living owners imply and each container reaches each.
func (s *story) settled(what string) time.Duration {
	s.t.Helper()
	took, d := s.Settle(s.t.Context(), bound())
	if !d.None() {
		s.t.Fatalf("%s: after %s\n%s", what, took, d)
	}
	s.t.Logf("%s: all is as it should be after %s", what, took.Round(10*time.Millisecond))
	if took > 2*time.Second {
		s.t.Logf("until then:\n%s", s.Awaited)
	}
	return took
}

// until waits until a host says of a network what is wanted.
func (s *story) until(n *Node, network, what string, wanted func(Network) bool) Network {
	s.t.Helper()
	last := ""
	for began := time.Now(); time.Since(began) < bound(); time.Sleep(20 * time.Millisecond) { // a command has no events
		list, err := n.Networks(s.t.Context())
		last = fmt.Sprintf("%+v %v", list, err)
		for _, w := range list {
			if w.Name == network && wanted(w) {
				return w
			}
		}
	}
	s.t.Fatalf("%s: %s: %s", n.Name, what, last)
	return Network{}
}

// says waits until the log of a host's agent has a text so often in all.
func (s *story) says(n *Node, text string, times int) {
	s.t.Helper()
	var log string
	for began := time.Now(); time.Since(began) < bound(); time.Sleep(20 * time.Millisecond) { // a file
		b, err := os.ReadFile(n.Log())
		s.must(err)
		if log = string(b); strings.Count(log, text) >= times {
			break
		}
	}
	if got := strings.Count(log, text); got != times {
		s.t.Errorf("%s says %q %d times, not %d", n.Name, text, got, times)
	}
}

func silent(peer string, is bool) func(Network) bool {
	return func(w Network) bool {
		for _, p := range w.Peers {
			if p.Name == peer {
				return p.Silent == is && len(p.Blocks) > 0
			}
		}
		return false
	}
}

// flow is a ping that goes on, fifty a second.
type flow struct {
	s   *story
	cmd *exec.Cmd
	out strings.Builder
}

func (s *story) flow(from *Node, box string, to netip.Addr) *flow {
	s.t.Helper()
	f := &flow{s: s}
	f.cmd = from.Command(context.Background(), "nsenter", "--net=/run/netns/"+box, "ping", "-q", "-i", "0.02", to.String())
	f.cmd.Stdout = &f.out
	s.must(f.cmd.Start())
	return f
}

var pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// whole ends the flow and fails when a packet of it was lost. The last one may be on its way.
func (f *flow) whole(what string) {
	f.s.t.Helper()
	_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGINT)
	_ = f.cmd.Wait() // what it printed tells
	m := pingSummary.FindStringSubmatch(f.out.String())
	if m == nil {
		f.s.t.Fatalf("%s: ping says %q", what, &f.out)
	}
	sent, _ := strconv.Atoi(m[1])
	got, _ := strconv.Atoi(m[2])
	if sent-got > 1 || got == 0 {
		f.s.t.Errorf("%s: of %d packets %d came back", what, sent, got)
	}
	f.s.t.Logf("%s: of %d packets %d came back", what, sent, got)
}
