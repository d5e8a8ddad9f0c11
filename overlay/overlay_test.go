package overlay

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

var netips = cmp.Options{
	cmp.Comparer(func(x, y netip.Addr) bool { return x == y }),
	cmp.Comparer(func(x, y netip.Prefix) bool { return x == y }),
}

func attached(owner, addr string) plan.Attachment {
	return plan.Attachment{
		Key: plan.Key{Owner: owner, IfName: "eth0"}, Network: "blue", Addr: netip.MustParseAddr(addr), Node: netip.MustParseAddr("10.42.1.1"),
		MTU: 1450, Default: true, Reach: netip.MustParsePrefix("10.42.0.0/16"), NSID: "4:9",
	}
}

func linkOf(a plan.Attachment) plan.Link {
	l := plan.HostLink(a)
	l.Alias = a.Alias()
	return l
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	a, b := attached("a", "10.42.1.2"), attached("b", "10.42.1.3")
	networks := []plan.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), Node: netip.MustParseAddr("10.42.1.1")}}
	incomplete := linkOf(a)
	incomplete.Alias = ""
	retired := linkOf(a)
	retired.Retired = true
	renamed, copied := linkOf(a), linkOf(a)
	renamed.Name, copied.Name = "foo0", "foo0"
	copied.MTU = 1
	moved := a
	moved.Addr = netip.MustParseAddr("10.42.1.9")
	for _, c := range []struct {
		name               string
		journal            []record
		links              []plan.Link
		keep, adopted, end string
	}{
		{"what both know stays", []record{attachRecord(a), attachRecord(b)}, []plan.Link{linkOf(a), linkOf(b)}, "a b", "", ""},
		{"an ADD without a complete link is undone", []record{attachRecord(a)}, []plan.Link{incomplete}, "", "", "a"},
		{"a container whose namespace went is ended", []record{attachRecord(a), attachRecord(b)}, []plan.Link{linkOf(b)}, "b", "", "a"},
		{"a DEL that was begun is finished", []record{attachRecord(a), detachRecord(a.Key)}, []plan.Link{linkOf(a)}, "", "", "a"},
		{"a DEL that had retired the link is finished", []record{attachRecord(a)}, []plan.Link{retired}, "", "", "a"},
		{"a DEL that was finished is forgotten", []record{attachRecord(a), detachRecord(a.Key), goneRecord(a.Key)}, nil, "", "", ""},
		{"an ADD after a DEL stays", []record{attachRecord(a), detachRecord(a.Key), goneRecord(a.Key), attachRecord(a)}, []plan.Link{linkOf(a)}, "a", "", ""},
		{"what only the kernel knows is adopted", []record{attachRecord(a)}, []plan.Link{linkOf(a), linkOf(b)}, "a b", "b", ""},
		{"everything is adopted when the journal is lost", nil, []plan.Link{linkOf(a), linkOf(b)}, "a b", "a b", ""},
		{"a container whose link was renamed stays", []record{attachRecord(a)}, []plan.Link{renamed}, "a", "", ""},
		{"a link with the alias of another is not taken for it", nil, []plan.Link{linkOf(a), copied}, "a", "a", ""},
		{"a link with another address than the journal's is not trusted", []record{attachRecord(a)}, []plan.Link{linkOf(moved)}, "", "", "a"},
	} {
		var raw []json.RawMessage
		for _, r := range c.journal {
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, text)
		}
		journal, unknown := replay(append(raw, json.RawMessage(`{"op":"teleport"}`)))
		if len(unknown) != 1 {
			t.Fatalf("unknown records: %v", unknown)
		}
		r := recovered(journal, plan.Observed{Links: c.links}, networks)
		got := []string{owners(r.keep), owners(r.adopted), owners(r.end)}
		if diff := cmp.Diff([]string{c.keep, c.adopted, c.end}, got); diff != "" {
			t.Errorf("%s: keep, adopted, end (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestAnAdoptedAttachmentIsLikeTheOneThatWasJournalled(t *testing.T) {
	t.Parallel()
	a := attached("a", "10.42.1.2")
	networks := []plan.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), Node: netip.MustParseAddr("10.42.1.1")}}
	r := recovered(nil, plan.Observed{Links: []plan.Link{linkOf(a)}}, networks)
	if diff := cmp.Diff([]plan.Attachment{a}, r.keep, netips); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

func owners(list []plan.Attachment) string {
	var out []string
	for _, a := range list {
		out = append(out, a.Owner)
	}
	return strings.Join(out, " ")
}

func TestValidateNamesEveryProblemWithItsKey(t *testing.T) {
	t.Parallel()
	c := Config{
		Store: "consul",
		Peers: []Peer{
			{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}},
			{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.128/25"), netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("10.42.3.7/24")}},
			{},
		},
		Networks: []Network{{Name: "Blue!", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 1 << 24, MTU: 9, Path: "pigeon"}, {}},
	}
	want := `overlay.store: expected local, static or etcd, found "consul"
overlay.port: 0 is not between 1 and 65535
overlay.networks[0].name: expected 1 to 32 of a-z, 0-9 and -, found "Blue!"
overlay.networks[0].vni: 16777216 is not between 1 and 16777215
overlay.networks[0].mtu: 9 is not 0 or between 576 and 65535
overlay.networks[0].path: expected auto, direct or vxlan, found "pigeon"
overlay.networks[1].name: expected 1 to 32 of a-z, 0-9 and -, found ""
overlay.networks[1].cidr: expected an IPv4 prefix such as 10.42.0.0/16
overlay.networks[1].vni: 0 is not between 1 and 16777215
overlay.peers[1].name: "web1" is peers[0] already
overlay.peers[1].address: 192.0.2.11 is the address of peers[0] already
overlay.peers[1].blocks[0]: 10.42.1.128/25 overlaps 10.42.1.0/24 of web1
overlay.peers[1].blocks[1]: 10.9.0.0/24 is in no network's cidr or cidr6
overlay.peers[1].blocks[2]: 10.42.3.7/24 has bits set behind its length; did you mean 10.42.3.0/24?
overlay.peers[2].name: expected the peer's node.name
overlay.peers[2].address: expected the peer's address on the underlay`
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
}

func TestAHostWithoutABlockOfANetworkTakesNoPartInItsTunnels(t *testing.T) {
	t.Parallel()
	c := Config{Port: 4789, Networks: []Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}}}
	peer := store.Node{Name: "web2", Addr: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24")}}
	self := kernel.Underlay{Dev: "eth0", Addr: netip.MustParseAddr("192.0.2.11"), MTU: 1500}
	with := c.networks(c.Networks, store.Cluster{Self: store.Node{Name: "web1", Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}}, Peers: []store.Node{peer}}, self, nil)
	if n := with[0]; n.MTU != 1450 || n.Node.String() != "10.42.1.1" || len(n.Peers) != 1 || n.Peers[0].VTEP.MAC != plan.VTEPMAC("web2", 42) {
		t.Fatalf("got %+v", n)
	}
	without := c.networks(c.Networks, store.Cluster{Self: store.Node{Name: "web1"}, Peers: []store.Node{peer}}, self, nil)
	if n := without[0]; n.Underlay.Addr.IsValid() || len(n.Peers) != 0 || n.MTU != 1500 {
		t.Fatalf("got %+v", n)
	}
}

func TestValidateNamesEveryProblemWithEtcd(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Store = "etcd"
	c.Etcd.Prefix, c.Etcd.User, c.Etcd.CertFile, c.Etcd.Session = "fairlead/", "u", "c", time.Second
	c.Etcd.Endpoints = []string{"http://192.0.2.1:2379", "192.0.2.1"}
	c.Networks[0].Block = 12
	c.Peers = []Peer{{Name: "a", Address: netip.MustParseAddr("192.0.2.1")}}
	err := c.Validate()
	for _, want := range []string{
		`overlay.etcd.endpoints[1]: expected http://host:port or https://host:port, found "192.0.2.1"`, "overlay.etcd.prefix: expected a path", "overlay.etcd.user: user and password_file belong together",
		"overlay.etcd.cert_file: cert_file and key_file belong together", "overlay.etcd.session: expected whole seconds between 2s and 10m, found 1s",
		"overlay.peers: store is etcd", "overlay.networks[0].block: 12 is not 0 or between",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	good := DefaultConfig()
	good.Store, good.Etcd.Endpoints = "etcd", []string{"http://192.0.2.1:2379"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestNetworksOfASharedStoreAreReadWithoutThoseThatDoNotFit(t *testing.T) {
	t.Parallel()
	network := func(name, cidr string, vni uint32, allow ...string) store.Network {
		n, err := Network{Name: name, CIDR: netip.MustParsePrefix(cidr), VNI: vni, Allow: allow}.forStore()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	list := []store.Network{network("blue", "10.42.0.0/16", 42, "green", "gone"), network("clash", "10.42.8.0/24", 7), network("green", "10.43.0.0/20", 43), network("liar", "10.44.0.0/24", 44)}
	list[3].VNI = 45
	networks, faults := fromStore(list)
	if len(networks) != 2 || networks[0].Name != "blue" || networks[1].Name != "green" || strings.Join(networks[0].Allow, " ") != "green" {
		t.Errorf("networks: %+v", networks)
	}
	if len(faults) != 2 || faults["clash"] == nil || faults["liar"] == nil {
		t.Errorf("faults: %v", faults)
	}
	if list[0].Block != 24 || list[1].Block != 28 || list[2].Block != 24 {
		t.Errorf("lengths of blocks: %d, %d, %d", list[0].Block, list[1].Block, list[2].Block)
	}
}
