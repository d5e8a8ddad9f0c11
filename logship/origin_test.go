package logship

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// What a container writes to its output, and to a file inside it, says all that is known of where it comes from.
func TestEveryRecordSaysWhereItComesFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "c0ffee", Name: "shop", Image: "reg.example.net/shop:1", Runtime: "docker", State: container.Running,
		Labels: map[string]string{"tier": "front", LabelLogs: "/data/*.log", "fairlead.logs.parse": "json"}, Pod: container.Pod{Namespace: "prod", Name: "shop-1"},
		Log:         container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI},
		Mounts:      []container.Mount{{Type: "volume", Source: filepath.Join(dir, "volume"), Destination: "/data"}},
		Attachments: []container.Attachment{{Network: "blue"}, {Network: "red", Addrs: []netip.Addr{netip.MustParseAddr("10.42.0.7")}}},
	}
	writeFile(t, c.Log.Path, strings.Replace(cri("to stderr"), "stdout", "stderr", 1)+cri(`{"status":200}`))
	writeFile(t, filepath.Join(dir, "volume/a.log"), "to a file\n")
	r := sinktest.Listen(t, "")
	run(t, dir, Config{Sinks: []SinkConfig{{Name: "central", Type: "syslog", Address: "tcp://" + r.Addr}}}, newInventory(c))
	about := []string{" web1 shop ", `runtime="docker"`, `id="c0ffee"`, `name="shop"`, `image="reg.example.net/shop:1"`, `namespace="prod"`, `pod="shop-1"`,
		`addr="10.42.0.7"`, `label="tier=front"`, `label="fairlead.logs=/data/*.log"`}
	for _, m := range r.Wait(3) {
		for _, want := range about {
			if !strings.Contains(m, want) {
				t.Errorf("%s is not in %s", want, m)
			}
		}
		own := map[string]string{"to stderr": " - stderr [", `{"status":200}`: ` field="status=200"`, "to a file": `path="/data/a.log"`}
		_, text, _ := strings.Cut(m, "] ")
		if want := own[text]; want == "" || !strings.Contains(m, want) {
			t.Errorf("%q is not in %s", want, m)
		}
	}
}
