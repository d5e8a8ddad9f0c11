//go:build kernel

package detect

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

const hostLocal = "/usr/lib/cni/host-local"

// allocate asks the real plugin for an address of a network that has two to give.
func allocate(t *testing.T, dir, id string) error {
	t.Helper()
	c := exec.CommandContext(t.Context(), hostLocal)
	c.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id, "CNI_NETNS=/var/run/netns/none", "CNI_IFNAME=eth0", "CNI_PATH="+filepath.Dir(hostLocal))
	c.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bridge","type":"bridge","ipam":{"type":"host-local","dataDir":%q,
		"ranges":[[{"subnet":"10.4.0.0/24","rangeStart":"10.4.0.2","rangeEnd":"10.4.0.3"}]]}}`, dir))
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestAddressOfALeaseThatWasMovedIsGivenOutAgain(t *testing.T) {
	hosttest.Require(t, hostLocal)
	dir := t.TempDir()
	l := leases{Host{Leases: []string{dir}}}
	must(t, allocate(t, dir, "default-first"), allocate(t, dir, "default-second"))
	first := one(t, l, filepath.Join(dir, "bridge/10.4.0.2"))
	if first.Claim.CNI != "default-first" || !strings.HasSuffix(strings.Join(first.Evidence, " "), "given to default-first for eth0") {
		t.Errorf("%+v", first)
	}
	if err := allocate(t, dir, "default-third"); err == nil {
		t.Error("a third of two addresses was given out")
	}
	free, err := l.Hold(first)
	must(t, err, os.MkdirAll(first.Room, 0o700), os.Rename(first.Dir, filepath.Join(first.Room, "x")), free(), allocate(t, dir, "default-third"))
	if r := one(t, l, first.ID); r.Claim.CNI != "default-third" || r.Instance == first.Instance {
		t.Errorf("%+v", r)
	}
	if all, err := l.Owned(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("what is in quarantine is listed, too: %+v (%v)", all, err)
	}
}
