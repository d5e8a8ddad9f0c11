//go:build kernel

package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// A process works and rests. Whenever its usage is the same before and after a Read, so is what the kernel shows of user
// and system time, and the Read shows it.
func TestUserAndSystemTimeFollowTheUsageOfARealCgroup(t *testing.T) {
	hosttest.Root(t)
	h, err := host.DefaultRoot().Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	mount, ok := h.V1["cpuacct"]
	if !ok {
		t.Skip("this host has no cpuacct: on cgroup v2 it is one file")
	}
	path := fmt.Sprintf("/fairlead-test-%d-follows", os.Getpid())
	at := filepath.Join(mount, path)
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read _; for i in 1 2 3 4 5 6 7 8 9 10; do head -c 20000000 /dev/zero | wc -c > /dev/null; sleep 0.03; done")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // killed with the test's context, if it is not done
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if err := os.Remove(at); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	if err := os.WriteFile(filepath.Join(at, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	r := NewTree(h, &budget{left: 100}).Reader(host.Membership{V1: map[string]string{"cpuacct": path}})
	defer r.Close()
	show := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(at, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if _, err := fmt.Fprintln(in); err != nil {
		t.Fatal(err)
	}
	var buf Buffer
	var s, direct Stats
	compared, moved := 0, map[Value]bool{}
	for began := time.Now(); time.Since(began) < hosttest.Bound(20*time.Second) && (compared < 300 || len(moved) < 5); {
		before := show("cpuacct.usage")
		if err := r.Read(&buf, &s); err != nil {
			t.Fatal(err)
		}
		if err := parseCPUAcctStat(show("cpuacct.stat"), &direct); err != nil {
			t.Fatal(err)
		}
		moved[s.CPU.Usage] = true
		if !bytes.Equal(before, show("cpuacct.usage")) {
			continue
		}
		compared++
		if s.CPU.User != direct.CPU.User || s.CPU.System != direct.CPU.System {
			t.Fatalf("usage %s: user %+v, system %+v; the kernel shows %+v, %+v", before, s.CPU.User, s.CPU.System, direct.CPU.User, direct.CPU.System)
		}
	}
	if compared < 20 || len(moved) < 3 {
		t.Errorf("%d compared, at %d usages", compared, len(moved))
	}
}
