package kernel

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestWhatIsSentAgainLeavesOutTheAddressesThatWereAdded(t *testing.T) {
	t.Parallel()
	add := func(p string) queued {
		return queued{step: plan.AddAddr{Addr: plan.Addr{Dev: "eth0", Prefix: netip.MustParsePrefix(p)}}}
	}
	up := queued{step: plan.SetLink{Name: "eth0", Up: true}}
	queue := []queued{add("fd42::2/128"), add("10.42.1.2/32"), up, add("fd42::3/128")}
	var got []string
	for _, q := range undone(queue, []error{unix.EACCES, nil, nil, unix.EACCES}) {
		got = append(got, q.step.String())
	}
	want := []string{"ip addr add fd42::2/128 dev eth0", "ip link set eth0 up", "ip addr add fd42::3/128 dev eth0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
