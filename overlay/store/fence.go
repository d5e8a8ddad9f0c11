package store

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Fence orders all leases of a block that were ever given: by the store's epoch, then by the revision of the record. The
// owner of a block is who the record with the highest fence names.
type Fence struct {
	Epoch uint64 `json:"epoch"`
	Rev   int64  `json:"rev"`
}

// Compare is negative when f is older than g.
func (f Fence) Compare(g Fence) int {
	return cmp.Or(cmp.Compare(f.Epoch, g.Epoch), cmp.Compare(f.Rev, g.Rev))
}

func (f Fence) String() string { return fmt.Sprintf("%d.%d", f.Epoch, f.Rev) }

// Lease is the last that is known of a block.
type Lease struct {
	Network string       `json:"network"`
	Block   netip.Prefix `json:"block"`
	Holder  string       `json:"holder"` // node; empty: it was given back
	By      string       `json:"by"`     // see Identity.by
	Fence   Fence        `json:"fence"`
}
