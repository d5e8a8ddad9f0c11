//go:build kernel

package snapshot

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestTreeThatChangesUnderTheCopyLeadsNowhere(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	const secret = "of the host, not of the volume"
	check(t, os.MkdirAll(dir+"/host/d", 0o700), os.WriteFile(dir+"/host/d/f", []byte(secret), 0o600))
	check(t, os.MkdirAll(dir+"/volume/d/d/d", 0o700), os.WriteFile(dir+"/volume/d/d/f", []byte("own"), 0o600))
	check(t, os.Symlink(dir+"/host", dir+"/volume/link"), os.Symlink(dir+"/host/d/f", dir+"/volume/d/link"))
	stop, stopped := make(chan struct{}), make(chan struct{})
	swapped := 0
	go func() { // a container that puts links in the place of a directory and of a file, back and forth
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, pair := range [][2]string{{"d", "link"}, {"d/f", "d/link"}, {"d/d", "d/link"}} {
				a, b := dir+"/volume/"+pair[0], dir+"/volume/"+pair[1]
				if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
					swapped++
				}
			}
		}
	}()
	r := NewRoom(dir + "/room")
	for range 60 {
		h, err := r.Take(t.Context(), Request{Volume: "v", Source: dir + "/volume", Purpose: Passed, Driver: Copy()})
		check(t, err)
		check(t, filepath.WalkDir(h.Path, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), secret) {
					t.Errorf("%s holds %q (%v)", path, b, err)
				}
			}
			return err
		}))
		check(t, r.Drop(t.Context(), h))
	}
	close(stop)
	<-stopped
	if swapped < 100 {
		t.Errorf("swapped only %d times: this proves nothing", swapped)
	}
	t.Logf("swapped %d times", swapped)
}
