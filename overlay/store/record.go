package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// recordVersion is the one that this build writes and reads.
const recordVersion = 1

// The keys below the prefix.
const (
	epochKey    = "epoch"     // the store's epoch
	graceKey    = "grace"     // there while no new lease is given
	nodesDir    = "nodes/"    // NAME: who it is
	liveDir     = "live/"     // NAME: the same, for as long as its session lasts
	networksDir = "networks/" // NAME
	blocksDir   = "blocks/"   // NETWORK/BLOCK: who holds it
	usesDir     = "uses/"     // NETWORK/NAME: it has containers there
)

// The records. A block's is never deleted but with its network: giving it back is a record without a holder, whose
// fence is higher than that of the lease before.
type (
	epochRecord struct {
		Epoch   uint64 `json:"epoch"`
		Token   string `json:"token"`   // random: two stores restored from one snapshot may both raise it to the same
		Lineage string `json:"lineage"` // random; the same for all that was ever restored from this store
		Cluster string `json:"cluster"` // etcd's cluster id
	}
	graceRecord struct {
		Epoch uint64 `json:"epoch"`
	}
	blockRecord struct {
		Holder string `json:"holder"`
		By     string `json:"by"`
		Epoch  uint64 `json:"epoch"`
		// See Lease.
		For   string   `json:"for,omitempty"`
		Was   []string `json:"was,omitempty"`
		After Fence    `json:"after,omitzero"`
	}
	useRecord struct{}
)

// versioned is what every record begins with.
type versioned struct {
	V int `json:"v"`
}

// encode writes a record.
func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err) // our own types
	}
	head := fmt.Sprintf(`{"v":%d`, recordVersion)
	if len(b) > 2 {
		head += ","
	}
	return []byte(head + string(b[1:]))
}

var errForeign = errors.New("it is not a record of Fairlead")

// decode reads the record of a key, by value: epochRecord, Identity, Network, blockRecord, ...
func decode(key string, value []byte) (any, error) {
	var v versioned
	if err := json.Unmarshal(value, &v); err != nil || v.V < 1 {
		return nil, errForeign
	}
	if v.V > recordVersion {
		return nil, fmt.Errorf("it has version %d, this build knows %d; a newer agent wrote it", v.V, recordVersion)
	}
	dir, name, _ := strings.Cut(key, "/")
	switch dir + "/" {
	case epochKey + "/":
		return parse(value, func(r epochRecord) bool { return r.Epoch > 0 && r.Token != "" && r.Lineage != "" })
	case graceKey + "/":
		return parse(value, func(graceRecord) bool { return true })
	case nodesDir, liveDir:
		return parse(value, func(r Identity) bool { return nodeName.MatchString(name) && r.ID != "" && r.Addr.IsValid() })
	case networksDir:
		return parse(value, func(r Network) bool { return r.Name == name && r.sound() })
	case blocksDir:
		if _, _, ok := parseBlockKey(key); !ok {
			return nil, errForeign
		}
		return parse(value, func(r blockRecord) bool {
			return r.Epoch > 0 && (r.Holder == "" || ValidNodeName(r.Holder)) && !slices.ContainsFunc(r.Was, func(n string) bool { return !ValidNodeName(n) })
		})
	case usesDir:
		return parse(value, func(useRecord) bool { return strings.Count(name, "/") == 1 })
	}
	return nil, errForeign
}

// nodeName is what is part of a key and is shown to people.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// ValidNodeName tells whether a node of this name can be in a shared store.
func ValidNodeName(name string) bool { return nodeName.MatchString(name) }

var networkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (n Network) sound() bool {
	for cidr, bits := range n.cidrs() {
		if !cidr.IsValid() || cidr != cidr.Masked() || bits < cidr.Bits() || bits > cidr.Addr().BitLen()-2 {
			return false
		}
	}
	for _, f := range []struct{ part, of netip.Prefix }{{n.Fixed, n.CIDR}, {n.Fixed6, n.CIDR6}} {
		if f.part.IsValid() && (f.part != f.part.Masked() || !f.of.Contains(f.part.Addr()) || f.part.Bits() <= f.of.Bits()) {
			return false
		}
	}
	return networkName.MatchString(n.Name) && n.CIDR.Addr().Is4() && (!n.CIDR6.IsValid() || n.CIDR6.Addr().Is6()) && len(n.Spec) > 0
}

func parse[R any](value []byte, sound func(R) bool) (any, error) {
	var r R
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	if !sound(r) {
		return nil, errForeign
	}
	return r, nil
}

func blockKey(network string, b netip.Prefix) string {
	return fmt.Sprintf("%s%s/%s-%d", blocksDir, network, b.Addr(), b.Bits())
}

func parseBlockKey(key string) (network string, b netip.Prefix, ok bool) {
	rest, ours := strings.CutPrefix(key, blocksDir)
	network, text, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(text, '-')
	if !ours || i < 0 {
		return "", b, false
	}
	addr, err := netip.ParseAddr(text[:i])
	bits, err2 := strconv.Atoi(text[i+1:])
	if err != nil || err2 != nil {
		return "", b, false
	}
	b = netip.PrefixFrom(addr, bits)
	return network, b, b.IsValid() && b == b.Masked() && blockKey(network, b) == key
}
