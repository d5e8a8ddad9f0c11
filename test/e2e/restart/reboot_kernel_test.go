//go:build kernel

package restart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/test/e2e/cni"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// room is how many containers a /26 holds: 64 addresses less that of the network, the host's own and broadcast.
const room = 61

// rebooted gives the host as it is in a boot of its own: no kernel object of ours, the state directory from before, and
// a /proc with this boot's id, in a mount namespace that ends with the agent.
func rebooted(t *testing.T, stateDir, boot string) *world {
	t.Helper()
	w := newWorld(t)
	proc, id := filepath.Join(w.Dir, "proc"), filepath.Join(w.Dir, "boot_id")
	if err := os.Mkdir(proc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(id, []byte(boot+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.wrap = []string{"unshare", "--mount", "--propagation", "private", "sh", "-ec",
		`mount --rbind /proc "$0"; mount --bind "$1" "$0/sys/kernel/random/boot_id"; shift; exec "$@"`, proc, id}
	w.configure(stateDir, "host: {proc: "+proc+"}\noverlay:\n  networks:\n    - {name: suite, cidr: 10.42.0.0/26, vni: 42}\n")
	w.start("one")
	// That no namespace is left frees the addresses, too; the journal shows that it was the boot.
	if journal, err := os.ReadFile(filepath.Join(stateDir, "overlay/journal")); err != nil || !strings.HasPrefix(string(journal), "fairlead-journal 1 boot "+boot+"\n") {
		t.Errorf("the journal is not of boot %s (%v):\n%.200s", boot, err, journal)
	}
	return w
}

// fixed asks for an address.
func fixed(addr string) map[string]any { return map[string]any{"ips": []string{addr}} }

func TestAfterARebootEveryAddressIsFreeAndFixedOnesReturn(t *testing.T) {
	stateDir := filepath.Join(hosttest.Dir(t), "state")
	const db = "10.42.0.40"
	fill := func(w *world, boot string) (boxes []*hosttest.NetNamespace) {
		t.Helper()
		for i := range room {
			id, caps := fmt.Sprintf("%s-%d", boot, i), map[string]any(nil)
			if i == 0 {
				id, caps = "db", fixed(db)
			}
			box, err := w.attach(id, caps)
			if err != nil {
				t.Fatalf("%s: container %s: %v", boot, id, err)
			}
			boxes = append(boxes, box)
		}
		if _, err := w.attach("late", nil); err == nil || !strings.Contains(err.Error(), "no free address") {
			t.Fatalf("%s: a /26 took one more container, or said another thing: %v", boot, err)
		}
		if got, want := w.status().line(), fmt.Sprintf("one suite=%d/0", room); got != want {
			t.Fatalf("%s: status %s, want %s", boot, got, want)
		}
		return boxes
	}
	w := rebooted(t, stateDir, "11111111-1111-4111-8111-111111111111")
	boxes := fill(w, "first")
	w.kill()
	for _, box := range boxes {
		_ = box.File.Close() // the namespace ends
	}

	w = rebooted(t, stateDir, "22222222-2222-4222-8222-222222222222")
	if got, want := w.status().line(), fmt.Sprintf("one suite=0/%d", room); got != want {
		t.Fatalf("after the reboot: %s, want %s", got, want)
	}
	// The runtime tidies up late, for a container whose namespace went with the last boot.
	if err := w.Del(t.Context(), cni.Call{ID: "first-1"}); err != nil {
		t.Error(err)
	}
	fill(w, "second")
}
