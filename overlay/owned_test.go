package overlay

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

var _ reap.Owner = (*Overlay)(nil)

func TestAttachmentShowsItsContainerItsNamespaceAndWhoLivesInIt(t *testing.T) {
	t.Parallel()
	a := attached("default-web", "10.42.1.2")
	a.NetNS = "/run/netns/web"
	ns := host.NetNS{Dev: 4, Ino: 9}
	got := owned(a, map[host.NetNS][]int{ns: {42}, {Dev: 4, Ino: 8}: {7}})
	want := reap.Resource{
		Kind: reap.Attachment, ID: "default-web/eth0", Instance: "4:9 10.42.1.2", Where: a.Link(),
		Claim: reap.Claim{CNI: "default-web", NetNS: ns}, PIDs: []int{42},
		Evidence: []string{"address 10.42.1.2 on network blue, link " + a.Link() + ", made for default-web /run/netns/web"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
