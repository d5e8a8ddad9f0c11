//go:build kernel

package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// from gives the lines of a copy that came from one path in a container.
func from(out, path string) (got []string) {
	for _, l := range lines(out) {
		if strings.Contains(l, " file:"+path+" ") {
			got = append(got, l)
		}
	}
	return got
}

// whole fails the test unless each of n lines came once and nothing is reported lost.
func whole(t *testing.T, s ship, got []string, n int, what string) {
	t.Helper()
	if lost, doubled, which := tally(got, n); lost+doubled > 0 || len(got) != n {
		t.Errorf("%s: %d lines, %d lost, %d doubled: %s", what, len(got), lost, doubled, which)
	}
	if lost := s.sink(0).Lost; lost > 0 {
		t.Errorf("%s: %d bytes reported lost", what, lost)
	}
}

// The container writes to its tmpfs until it ends: what it wrote last is nowhere but in a namespace without processes.
func TestWhatAContainerWroteToItsTmpfsArrivesToTheLastLine(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	out := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, inv)
	id := docker(t, d, "run", "-d", "--name", "shop", "--cgroup-parent", d.Cgroup, "--net", "none", "--log-driver", "none", "--tmpfs", "/logs",
		"--label", LabelLogs+"=/logs/*.log", "bb", "sh", "-c", `echo "line 0" >/logs/a.log; while [ ! -e /logs/go ]; do sleep 0.05; done
			n=1; while [ $n -lt 3000 ]; do echo "line $n" >>/logs/a.log; n=$((n+1)); done`)
	removed := false
	defer func() {
		if !removed {
			docker(t, d, "rm", "-f", id)
		}
	}()
	eventually(t, "the first line", func() bool { return len(from(out, "/logs/a.log")) == 1 })
	docker(t, d, "exec", id, "touch", "/logs/go")
	docker(t, d, "wait", id)
	docker(t, d, "rm", id)
	removed = true
	eventually(t, "the stream ends", func() bool { return len(s.Streams()) == 0 })
	whole(t, s, from(out, "/logs/a.log"), 3000, "a file on a tmpfs")
	if spools, _ := filepath.Glob(filepath.Join(dir, "state", "spool", "*")); len(spools) > 0 {
		t.Errorf("spools are left: %q", spools)
	}
}

// native keeps roots in plain directories: there is no upper directory to look in.
func TestARootWithoutLayersAndAMountMadeInsideAreReadAndNobodyIsHeldUp(t *testing.T) {
	d := hosttest.Containerd(t, false)
	inv := realInventory(t, d.Address)
	dir := t.TempDir()
	out := filepath.Join(dir, "copy")
	cfg := Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}
	s := run(t, dir, cfg, inv)
	ctr := func(args ...string) {
		t.Helper()
		if text, err := d.Ctr(t.Context(), "default", args...); err != nil {
			t.Fatalf("ctr %s: %v %s", args, err, text)
		}
	}
	script := `mkdir -p /var/log /made; mount -t tmpfs made /made
		n=0; while [ $n -lt 2000 ]; do
			echo "line $n" >>/var/log/r.log; echo "line $n" >>/made/m.log
			if [ $((n%500)) = 250 ]; then mv /var/log/r.log /var/log/r.log.1; mv /made/m.log /made/m.log.$n; fi
			if [ $((n%50)) = 0 ]; then sleep 0.1; fi; n=$((n+1))
		done
		while [ ! -e /go ]; do sleep 0.05; done
		until umount /made; do echo x >>/busy; sleep 0.01; done; exec sleep 600`
	ctr("run", "-d", "--null-io", "--snapshotter", "native", "--privileged", "--cgroup", d.Cgroup+"/one", "--label", LabelLogs+"=/var/log/*.log,/made/*.log",
		daemons.BusyboxName, "plain", "sh", "-c", script)
	defer func() {
		if t.Failed() {
			t.Logf("%+v\n%s", s.Streams(), strings.Join(lines(out)[:min(5, len(lines(out)))], "\n"))
			for _, p := range []string{"/var/log/r.log", "/made/m.log"} {
				_, _, what := tally(from(out, p), 2000)
				t.Logf("%s: %d lines, %s", p, len(from(out, p)), what)
			}
		}
	}()
	all := func() bool { return len(from(out, "/var/log/r.log")) >= 2000 && len(from(out, "/made/m.log")) >= 2000 }
	eventually(t, "half of the lines", func() bool { return len(lines(out)) > 1000 })
	s.stop()
	s = run(t, dir, cfg, inv) // goes on where it was
	eventually(t, "all lines", func() bool { return all() && s.sink(0).Lag == 0 })
	whole(t, s, from(out, "/var/log/r.log"), 2000, "a file in a plain root")
	whole(t, s, from(out, "/made/m.log"), 2000, "a file on a mount made inside")
	c := inv.Snapshot().Containers[0]
	if c.Rootfs.Upper != "" {
		t.Errorf("the root has an upper directory: %+v", c.Rootfs)
	}
	ctr("tasks", "exec", "--exec-id", "go", "plain", "touch", "/go")
	eventually(t, "the container's own umount", func() bool {
		at := mountsOf("/proc", c.PID).at("/made/m.log").dir
		return at == "/"
	})
	began := time.Now()
	ctr("tasks", "kill", "-s", "9", "plain")
	eventually(t, "removal", func() bool { _, err := d.Ctr(t.Context(), "default", "tasks", "rm", "plain"); return err == nil })
	ctr("containers", "rm", "plain")
	t.Logf("killed and removed within %s", time.Since(began).Round(time.Millisecond))
	eventually(t, "the streams end", func() bool { return len(s.Streams()) == 0 })
}

// A container that wants us to read the host's files, to wait, or to fill the disk.
func TestAHostileContainerLeadsNobodyOutOfItsRoot(t *testing.T) {
	secret := "/etc/shadow"
	if _, err := os.Stat(secret); err != nil {
		t.Skip("the host has no " + secret)
	}
	d := hosttest.Containerd(t, false)
	inv := realInventory(t, d.Address)
	dir := t.TempDir()
	out := filepath.Join(dir, "copy")
	run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, inv)
	script := `mkdir -p /w/real; cd /w; echo decoy >/w/real/shadow; ln -s real log
		mkfifo fifo.log; mknod zero.log c 1 5; ln -s /etc/shadow abs.log; ln -s ../../../../../../etc/shadow up.log; ln -s /proc/1/root/etc/shadow proc.log
		echo "line 0" >sparse.log; dd if=/dev/zero of=sparse.log bs=1 count=0 seek=1000G || exit 1; echo "line 1" >>sparse.log
		echo "line 2" >>sparse.log; dd if=/dev/zero of=sparse.log bs=1 count=0 seek=2000G || exit 1
		n=0; while [ $n -lt 100000 ]; do for to in /etc ../../../../../../etc /proc/self/root/etc real; do ln -s $to next; mv -T next log; done; echo "line $n" >>fine.log; n=$((n+1)); done`
	if text, err := d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--snapshotter", "native", "--cgroup", d.Cgroup+"/one",
		"--mount", "type=tmpfs,src=w,dst=/w", "--label", LabelLogs+"=/w/*.log,/w/log/shadow", daemons.BusyboxName, "hostile", "sh", "-c", script); err != nil {
		t.Fatalf("%v %s", err, text)
	}
	eventually(t, "what is honest", func() bool { return len(from(out, "/w/fine.log")) > 300 && len(from(out, "/w/log/shadow")) > 0 })
	eventually(t, "what stands between holes", func() bool { return len(from(out, "/w/sparse.log")) == 3 })
	for _, l := range lines(out) {
		if strings.Contains(l, "root:") {
			t.Fatalf("the host's file was read: %s", l)
		}
	}
	for _, p := range []string{"fifo", "zero", "abs", "up", "proc"} {
		if got := from(out, "/w/"+p+".log"); len(got) > 0 {
			t.Errorf("%s.log: %d lines were read: %.200s", p, len(got), got[0])
		}
	}
	if fi, err := os.Stat(out); err != nil || fi.Size() > 64<<20 {
		t.Errorf("copy: %d bytes, %v", fi.Size(), err)
	}
}

// While the sink is down the spool takes what it may; then the file waits, and ends with its container.
func TestWhatASpoolHasNoRoomForIsCountedWhenItsContainerEnds(t *testing.T) {
	const size = 200 << 20
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	r := sinktest.Listen(t, "")
	r.Stop()
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "down", Type: "syslog", Address: "tcp://" + r.Addr}}}, inv)
	id := docker(t, d, "run", "-d", "--cgroup-parent", d.Cgroup, "--net", "none", "--log-driver", "none", "--tmpfs", "/logs", "--label", LabelLogs+"=/logs/*.log",
		"bb", "sh", "-c", fmt.Sprintf(`yes %s | head -c %d >/logs/a.tmp; mv /logs/a.tmp /logs/a.log; exec sleep 600`, strings.Repeat("x", 99), size))
	removed := false
	defer func() {
		if !removed {
			docker(t, d, "rm", "-f", id)
		}
	}()
	eventually(t, "the spool is full", func() bool { return s.sink(0).Lag > spoolBehind })
	docker(t, d, "rm", "-f", id)
	removed = true
	// A line of the spool is longer than the file's, and less than three times as long.
	eventually(t, "each byte is in the spool or counted", func() bool { return int64(s.sink(0).Lost)+s.sink(0).Lag >= size })
	if got := s.sink(0); int64(got.Lost)+got.Lag/3 > size {
		t.Errorf("of %d bytes at least %d are reported lost, and the spool has %d", size, got.Lost, got.Lag)
	} else {
		t.Logf("of %d bytes at least %d are reported lost, and the spool has %d", size, got.Lost, got.Lag)
	}
}
