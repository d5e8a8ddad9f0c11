//go:build kernel

package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestGCOfItsRuntimeSpeaksOfAnAdoptedAttachmentToo(t *testing.T) {
	w := newWorld(t)
	w.start()
	conf, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"blue","plugins":[{"type":"fairlead-cni","socket":%q,"owner":"one two"}]}`, w.socket))
	if err != nil {
		t.Fatal(err)
	}
	stays, goes, nobodys := hosttest.NetNS(t), hosttest.NetNS(t), hosttest.NetNS(t)
	for id, path := range map[string]string{"stays": stays.Path, "goes": goes.Path} {
		if _, err := w.cni.AddNetworkList(t.Context(), conf, w.runtime(id, path)); err != nil {
			t.Fatal(err)
		}
	}
	w.mustAdd("nobodys", nobodys.Path)
	// A link from before aliases said whose it is.
	old := plan.Key{Owner: "stays", IfName: "eth0"}.Link()
	sh(t, fmt.Sprintf(`ip link set %s alias "$(ip link show %[1]s | sed -n 's/^ *alias //p' | sed 's/@[^ ]*//')"`, old))
	w.stop()
	if err := os.Truncate(filepath.Join(w.dir, "state/overlay/journal"), 0); err != nil {
		t.Fatal(err)
	}
	w.start()
	if n := strings.Count(w.said.String(), "adopted an attachment"); n != 3 {
		t.Fatalf("%d adopted:\n%s", n, w.said)
	}
	// With a cache of its own: libcni calls DEL for what it remembers.
	forgetful := libcni.NewCNIConfigWithCacheDir(w.cni.Path, t.TempDir(), &invoke.DefaultExec{RawExec: &invoke.RawExec{}})
	collect := func(ids ...string) (left []string) {
		t.Helper()
		args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}} // an absent list is refused
		for _, id := range ids {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: id, IfName: "eth0"})
		}
		if err := forgetful.GCNetworkList(t.Context(), conf, args); err != nil {
			t.Fatal(err)
		}
		for _, a := range w.overlay.Attachments() {
			left = append(left, a.Owner)
		}
		return left
	}
	if left := strings.Join(collect("stays"), " "); left != "nobodys stays" {
		t.Fatalf("left: %s", left)
	}
	// It has been named once, so it is known whose it is.
	if left := strings.Join(collect(), " "); left != "nobodys" {
		t.Errorf("left: %s", left)
	}
}
