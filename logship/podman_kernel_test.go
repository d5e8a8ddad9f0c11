//go:build kernel

package logship

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// Podman's k8s-file, and files in a volume, a bind mount, a bind mount of one file and the container's own layer.
func TestOutputAndFilesOfARealPodmanContainerArriveOnce(t *testing.T) {
	d := hosttest.PodmanAPI(t)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	bind, out := filepath.Join(dir, "bind"), filepath.Join(dir, "copy")
	writeFile(t, filepath.Join(bind, "one.log"), "")
	if err := os.Mkdir(filepath.Join(bind, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, inv)
	const n = 2000
	script := `mkdir -p /var/log/app; n=0; while [ $n -lt 2000 ]; do
		echo "line $n"; echo "line $n" >>/data/v.log; echo "line $n" >>/bind/b.log; echo "line $n" >>/one.log; echo "line $n" >>/var/log/app/u.log; n=$((n+1))
	done; exec sleep 600`
	id := docker(t, d, "run", "-d", "--name", "shop", "--cgroup-parent", d.Cgroup, "--net", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000",
		"--log-driver", "k8s-file", "-v", "vol:/data", "-v", filepath.Join(bind, "sub")+":/bind", "-v", filepath.Join(bind, "one.log")+":/one.log",
		"--label", LabelLogs+"=/data/*.log,/bind/*.log,/one.log,/var/log/app/*.log", "bb", "sh", "-c", script)
	defer docker(t, d, "rm", "-f", "-t", "0", id)
	sources := []string{" shop stdout ", " shop file:/data/v.log ", " shop file:/bind/b.log ", " shop file:/one.log ", " shop file:/var/log/app/u.log "}
	of := func(source string) (got []string) {
		for _, l := range lines(out) {
			if strings.Contains(l, source) {
				got = append(got, l)
			}
		}
		return got
	}
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n*len(sources) && s.sink(0).Lag == 0 })
	for _, source := range sources {
		if lost, doubled, what := tally(of(source), n); lost+doubled > 0 {
			t.Errorf("%s: %d lost, %d doubled: %s", source, lost, doubled, what)
		}
	}
	if t.Failed() {
		t.Logf("%+v\n%s", s.Streams(), strings.Join(lines(out)[:5], "\n"))
	}
	if lost := s.sink(0).Lost; lost > 0 {
		t.Errorf("%d bytes reported lost", lost)
	}
}
