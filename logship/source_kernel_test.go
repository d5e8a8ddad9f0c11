//go:build kernel

package logship

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// entry sends one entry in the journal's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).
func entry(t *testing.T, d *daemons.JournalDaemon, fields ...string) {
	t.Helper()
	c, err := net.Dial("unixgram", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b []byte
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		b = append(append(b, name...), '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
		b = append(append(b, value...), '\n')
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// children gives the pids of journalctl processes that this one started.
func children(t *testing.T) (pids []int) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, p := range all {
		b, _ := os.ReadFile(p)
		var pid, parent int
		var state string
		i := strings.LastIndexByte(string(b), ')')
		if i < 0 || !strings.Contains(string(b), "(journalctl)") {
			continue
		}
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(b[i+1:]), &state, &parent); err == nil && parent == os.Getpid() && state != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestEachEntryOfARealJournalArrivesOnceThroughRestarts(t *testing.T) {
	d := hosttest.Journald(t)
	dir := t.TempDir()
	cfg, out := shaped1(dir)
	cfg.JournalDirectory = d.Directory
	cfg.Journal = []Journal{{Name: "shop", Match: []string{"SYSLOG_IDENTIFIER=shop"}}}
	n := 0
	send := func(count int) {
		for range count {
			entry(t, d, fmt.Sprintf("MESSAGE=line %d", n), "SYSLOG_IDENTIFIER=shop", "PRIORITY=6")
			entry(t, d, "MESSAGE=another's", "SYSLOG_IDENTIFIER=other")
			n++
		}
	}
	send(200)
	s := run(t, dir, cfg, newInventory())
	eventually(t, "what was there before", func() bool { return len(texts(out)) >= 200 })
	send(100)
	eventually(t, "what came after", func() bool { return len(texts(out)) >= 300 })
	for _, pid := range children(t) { // as the OOM killer would
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	send(100)
	eventually(t, "what came after journalctl was killed", func() bool { return len(texts(out)) >= 400 })
	s.stop()
	send(100)
	s = run(t, dir, cfg, newInventory())
	eventually(t, "what was sent while the agent was down", func() bool { return len(texts(out)) >= 500 })
	long := strings.Repeat("x", 9000)
	entry(t, d, "MESSAGE=two\nlines \xff "+long, "SYSLOG_IDENTIFIER=shop")
	eventually(t, "a long entry that is no text", func() bool { return len(texts(out)) >= 501 })
	s.stop()
	got := texts(out)
	if lost, doubled, what := tally(got, n); lost+doubled > 0 || len(got) != 501 {
		t.Errorf("%d lost, %d doubled: %s", lost, doubled, what)
	}
	if want := "two\nlines \uFFFD " + long; got[500] != want {
		t.Errorf("the long entry came as %.60q", got[500])
	}
	if first := lines(out)[0]; !strings.Contains(first, " web1 shop ") {
		t.Errorf("an entry came as %q", first)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("journalctl still runs: %v", left)
	}
}

func TestAContainersJournalEntriesAreItsOutput(t *testing.T) {
	d := hosttest.Journald(t)
	dir := t.TempDir()
	c := container.Container{ID: "abcd", Name: "shop", Image: "img:1", Runtime: "podman", State: container.Running, Log: container.Log{Driver: "journald"}}
	cfg, _ := shaped1(dir)
	cfg.JournalDirectory = d.Directory
	cfg.Sinks[0] = SinkConfig{Name: "f", Type: "file", Path: filepath.Join(dir, "f")}
	out := filepath.Join(dir, "f")
	id := "CONTAINER_ID_FULL=abcd"
	entry(t, d, "MESSAGE=to stdout", id, "PRIORITY=6")
	entry(t, d, "MESSAGE=to stderr", id, "PRIORITY=3")
	entry(t, d, "MESSAGE=one ", id, "PRIORITY=6", "CONTAINER_PARTIAL_MESSAGE=true")
	entry(t, d, "MESSAGE=line", id, "PRIORITY=6")
	inv := newInventory(c)
	inv.snap.Runtimes = []container.RuntimeState{{Name: "podman", Answered: true}}
	s := run(t, dir, cfg, inv)
	eventually(t, "three records", func() bool { return len(lines(out)) >= 3 })
	entry(t, d, "MESSAGE=last words", id, "PRIORITY=6")
	inv.publish(nil, []container.Tombstone{{Container: c}})
	eventually(t, "the last words of a container that is gone", func() bool { return len(lines(out)) >= 4 })
	eventually(t, "the stream is closed", func() bool { return len(s.Streams()) == 0 })
	s.stop()
	var got []string
	for _, l := range lines(out) {
		got = append(got, strings.SplitN(l, " ", 3)[2])
	}
	want := "shop stdout to stdout|shop stderr to stderr|shop stdout one line|shop stdout last words"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "state/spool/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Docker's local driver writes no text; the agent asks the API, is restarted, and the daemon is too.
func TestEachLineOfARealContainerWithTheLocalDriverArrivesOnce(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	cfg, out := shaped1(dir)
	// Lines come in bursts, so that many have the same second, on both streams.
	script := `n=0; while [ $n -lt 3000 ]; do echo "line $n"; n=$((n+1)); echo "line $n" >&2; n=$((n+1)); [ $((n % 200)) = 0 ] && sleep 0.2; done; head -c 40000 /dev/zero | tr '\0' x; echo; exec sleep 600`
	docker(t, d, "run", "-d", "--name", "shop", "--network", "none", "--log-driver", "local", "--label", "tier=web", "bb", "sh", "-c", script)
	for range 4 { // the agent stops and starts while lines are written
		s := run(t, dir, cfg, inv)
		from := len(lines(out))
		eventually(t, "more lines", func() bool { return len(lines(out)) > from+100 || len(lines(out)) >= 3001 })
		s.stop()
	}
	s := run(t, dir, cfg, inv)
	defer func() {
		if t.Failed() {
			lost, doubled, what := tally(lines(out), 3000)
			t.Logf("%d lines: %d lost, %d more than once: %s; %+v", len(lines(out)), lost, doubled, what, s.Streams())
		}
	}()
	eventually(t, "all lines", func() bool { return len(lines(out)) >= 3001 })
	docker(t, d, "restart", "-t", "0", "shop") // it writes all of it again
	eventually(t, "all lines of its second life", func() bool { return len(lines(out)) >= 6002 })
	docker(t, d, "rm", "-f", "shop")
	eventually(t, "the stream is closed", func() bool { return len(s.Streams()) == 0 })
	s.stop()
	got := lines(out)
	lost, doubled, what := tally(got, 3000)
	if lost != 0 || doubled != 3000 || len(got) != 6002 {
		t.Errorf("%d lines: %d lost, %d more than once, want each twice: %s", len(got), lost, doubled, what)
	}
	long := 0
	for _, l := range got {
		if strings.HasSuffix(l, strings.Repeat("x", 40000)) {
			long++
		}
		if !strings.Contains(l, " web1 shop std") {
			t.Fatalf("a line came as %.80q", l)
		}
	}
	if long != 2 {
		t.Errorf("%d lines of 40,000 bytes, want 2", long)
	}

}
