package overlay

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestGCSpeaksOfOneNetworkAndOneRuntimeOnly(t *testing.T) {
	t.Parallel()
	of := func(id, ifName, network, runtime string) plan.Attachment {
		return plan.Attachment{Key: plan.Key{Owner: id, IfName: ifName}, Network: network, Runtime: runtime}
	}
	all := []plan.Attachment{
		of("valid", "eth0", "blue", "one"), of("valid", "eth1", "blue", "one"), of("stale", "eth0", "blue", "one"),
		of("theirs", "eth0", "blue", "two"), of("nobodys", "eth0", "blue", ""), of("green", "eth0", "green", "one"),
	}
	var got []string
	for _, a := range unnamed(all, "blue", "one", []plan.Key{{Owner: "valid", IfName: "eth0"}, {Owner: "unknown", IfName: "eth0"}}) {
		got = append(got, a.String())
	}
	if want := []string{"valid/eth1", "stale/eth0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestARuntimeClaimsWhatItNamesAndNobodyHas(t *testing.T) {
	t.Parallel()
	of := func(id, network, runtime string) plan.Attachment {
		return plan.Attachment{Key: plan.Key{Owner: id, IfName: "eth0"}, Network: network, Runtime: runtime}
	}
	all := []plan.Attachment{of("adopted", "blue", ""), of("unnamed", "blue", ""), of("theirs", "blue", "two"), of("green", "green", "")}
	var valid []plan.Key
	for _, a := range []plan.Attachment{all[0], all[2], all[3]} {
		valid = append(valid, a.Key)
	}
	got := unclaimed(slices.Clone(all), "blue", "one", valid)
	if len(got) != 1 || got[0].Owner != "adopted" {
		t.Errorf("got %v", got)
	}
	if got := unclaimed(slices.Clone(all), "blue", "", valid); len(got) > 0 {
		t.Errorf("without a name: %v", got)
	}
}

func TestGCKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	ns := host.NetNS{Dev: 4, Ino: 77}
	lists := func(c container.Container) func(host.NetNS) []*container.Container {
		return func(of host.NetNS) []*container.Container {
			if of != ns {
				return nil
			}
			return []*container.Container{&c}
		}
	}
	lived := map[host.NetNS][]int{ns: {42}}
	running := container.Container{ID: "c7f1", Runtime: "containerd@/run/two.sock", State: container.Running}
	for _, c := range []struct {
		name, runtime string
		inside        map[host.NetNS][]int
		listed        func(host.NetNS) []*container.Container
		want          string
	}{
		{name: "listed by a runtime", runtime: "one", inside: lived, listed: lists(running), want: "containerd@/run/two.sock lists c7f1"},
		{name: "listed, but the namespace is dead", runtime: "one", listed: lists(running)},
		{name: "ended", runtime: "one", inside: lived, listed: lists(container.Container{Runtime: "containerd", State: container.Exited})},
		{name: "listed by nobody but us", runtime: "one", inside: lived, listed: lists(container.Container{Runtime: "cni", State: container.Running})},
		{name: "no inventory", runtime: "one", inside: lived},
		{name: "nobody's, with a process", inside: lived, want: "process 42 lives"},
		{name: "nobody's, without"},
	} {
		got := inUse(plan.Attachment{Runtime: c.runtime, NSID: "4:77"}, c.inside, c.listed)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAJournalFromBeforeOwnersIsRead(t *testing.T) {
	t.Parallel()
	old := `{"op":"attach","attachment":{"owner":"a","ifname":"eth0","network":"blue","addr":"10.42.1.2","node":"10.42.1.1","mtu":1450,"default":true,"reach":"10.42.0.0/16","netns":"/run/netns/a","nsid":"4:77"}}`
	got, unknown := replay([]json.RawMessage{json.RawMessage(old)})
	a, ok := got[plan.Key{Owner: "a", IfName: "eth0"}]
	if len(unknown) > 0 || !ok || a.Runtime != "" || a.Addr.String() != "10.42.1.2" {
		t.Fatalf("got %+v, %v", got, unknown)
	}
	// What is written now names the runtime.
	a.Runtime = "one"
	text, err := json.Marshal(attachRecord(a.Attachment))
	if err != nil {
		t.Fatal(err)
	}
	got, unknown = replay([]json.RawMessage{text})
	if len(unknown) > 0 || got[a.Key].Runtime != "one" {
		t.Errorf("%s came back as %+v, %v", text, got, unknown)
	}
}
