package host

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestBootIDIsReadWithoutItsLineEnd(t *testing.T) {
	t.Parallel()
	r := Root{Proc: t.TempDir()}
	if _, err := r.BootID(); err == nil {
		t.Error("a host without a boot id was not an error")
	}
	writeFile(t, r.Proc+"/sys/kernel/random/boot_id", "6cf2d3b1-1d2f-4bdd-9f66-2f3a5a0f2b8e\n")
	if id, err := r.BootID(); id != "6cf2d3b1-1d2f-4bdd-9f66-2f3a5a0f2b8e" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
}

func TestOwnNetworkNamespaceIsKnownByPidAndByPath(t *testing.T) {
	t.Parallel()
	r := DefaultRoot()
	byPid, err := r.NetNS(os.Getpid())
	if err != nil || byPid.IsZero() {
		t.Fatalf("got %v, %v", byPid, err)
	}
	byPath, err := StatNetNS("/proc/self/ns/net")
	if err != nil || byPath != byPid {
		t.Errorf("by path %v, by pid %v: %v", byPath, byPid, err)
	}
	if link, err := os.Readlink("/proc/self/ns/net"); err != nil || link != byPid.String() {
		t.Errorf("the kernel calls it %s, we %s: %v", link, byPid, err)
	}
	if _, err := r.NetNS(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that does not exist: %v", err)
	}
}
