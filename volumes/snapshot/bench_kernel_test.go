//go:build kernel

package snapshot

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// BenchmarkSnapshot takes and removes a snapshot of 2,000 files of 4 KB, the sync of the file system included.
func BenchmarkSnapshot(b *testing.B) {
	for name, fs := range map[string]func(testing.TB) string{
		"copy": hosttest.Dir, "reflink": hosttest.XFS,
		"btrfs": func(tb testing.TB) string {
			dir := hosttest.Btrfs(tb)
			if err := exec.CommandContext(tb.Context(), "btrfs", "subvolume", "create", dir+"/volume").Run(); err != nil {
				tb.Fatal(err)
			}
			return dir
		},
	} {
		b.Run(name, func(b *testing.B) {
			hosttest.Root(b)
			dir := fs(b)
			if err := os.MkdirAll(dir+"/volume", 0o755); err != nil {
				b.Fatal(err)
			}
			for i := range 2000 {
				if err := os.WriteFile(fmt.Sprint(dir, "/volume/", i), make([]byte, 4096), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			r := NewRoom(dir + "/room")
			for b.Loop() {
				h, err := r.Take(b.Context(), Request{Volume: "v", Source: dir + "/volume", Purpose: Kept})
				if err != nil {
					b.Fatal(err)
				}
				if h.Driver != name {
					b.Fatal(h.Driver)
				}
				if err := r.Drop(b.Context(), h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
