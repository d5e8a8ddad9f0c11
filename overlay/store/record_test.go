package store

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
)

func FuzzRecordsOfOthersArePassedOver(f *testing.F) {
	for _, key := range []string{epochKey, graceKey, nodesDir + "web1", liveDir + "web1", networksDir + "blue", blocksDir + "blue/10.42.0.0-24", usesDir + "blue/web1", "x"} {
		for _, value := range []string{"", "null", "[]", `{"v":1}`, `{"v":2}`, `{"v":1,"epoch":"x"}`, `{"v":1,"name":"blue","cidr":"10.42.0.0/16","block":99,"spec":{}}`, string(encode(testNetwork()))} {
			f.Add(key, value)
		}
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		v := newView("c", 1)
		err := v.put(key, []byte(value), 2, 3)
		if v.mod(key) != 3 || (err == nil) != (v.item(key).rec != nil) {
			t.Errorf("%q %q: %v, %+v", key, value, err, v.item(key))
		}
		n := node{self: Identity{Name: "web1", ID: "id", Addr: netip.MustParseAddr("192.0.2.11")}, fresh: func() string { return "token" }}
		if n.mem.restored(v) == "" {
			n.mem.learn(v, "web1")
		}
		n.next(v) // must not panic
		n.clusterOf(func(string) bool { return true }, step{})
	})
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	id := Identity{Machine: "m", Boot: "b", ID: "i", Addr: netip.MustParseAddr("192.0.2.11"), Agent: "v1"}
	for key, rec := range map[string]any{
		epochKey: epochRecord{Epoch: 3, Token: "t", Lineage: "l", Cluster: "c"}, nodesDir + "web1": id, blocksDir + "blue/fd42:0:0:1::-64": blockRecord{Holder: "web1", By: "i/b", Epoch: 3, For: "c1", Was: []string{"web2"}, After: Fence{2, 9}},
		usesDir + "blue/web1": useRecord{}, graceKey: graceRecord{3},
	} {
		got, err := decode(key, encode(rec))
		if err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("%s: wrote %+v, read %+v, %v", key, rec, got, err)
		}
	}
	if got, err := decode(networksDir+"blue", encode(testNetwork())); err != nil || got.(Network).CIDR != testNetwork().CIDR {
		t.Errorf("network: %+v, %v", got, err)
	}
	if !json.Valid(encode(useRecord{})) {
		t.Errorf("%s", encode(useRecord{}))
	}
}

func TestACandidateIsABlockThatIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cidr string
		bits int
		want int
	}{{"10.42.0.0/16", 24, 256}, {"10.42.0.0/24", 24, 1}, {"fd42::/60", 64, 16}} {
		cidr, taken := netip.MustParsePrefix(c.cidr), map[netip.Prefix]bool{}
		for {
			b, ok := candidate("web1", cidr, c.bits, func(b netip.Prefix) bool { return taken[b] })
			if !ok {
				break
			}
			if taken[b] || b != b.Masked() || b.Bits() != c.bits || !cidr.Contains(b.Addr()) {
				t.Fatalf("%s: %s", c.cidr, b)
			}
			taken[b] = true
		}
		if len(taken) != c.want {
			t.Errorf("%s: %d blocks, want %d", c.cidr, len(taken), c.want)
		}
	}
	if b, ok := candidate("web1", netip.MustParsePrefix("fd00::/16"), 64, func(netip.Prefix) bool { return false }); !ok || b.Bits() != 64 {
		t.Errorf("in a large network: %s %t", b, ok)
	}
}
