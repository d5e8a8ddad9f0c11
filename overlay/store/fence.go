package store

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
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
	For     string       `json:"for,omitempty"` // which container it was claimed for; for people
	// Was are nodes that held it before and did not give it back themselves: they may not know.
	Was []string `json:"was,omitempty"`
	// After is the fence of the lease before, as who wrote this one knew it.
	After Fence `json:"after,omitzero"`
	// Giving: this node has begun to give it back. It is not to be used; whether others have it already only the store says.
	Giving bool `json:"giving,omitempty"`
}

// mostWas bounds Lease.Was.
const mostWas = 8

// next is the record of the lease that follows l: of holder, or of nobody. Unless the holder of l gives it back, he may not
// know.
func (l Lease) next(holder, by string, epoch uint64, givenBack bool) blockRecord {
	r := blockRecord{Holder: holder, By: by, Epoch: epoch, After: l.Fence, Was: l.Was}
	if !givenBack {
		r.Was = with(r.Was, l.Holder)
	} else {
		r.Was = without(r.Was, l.Holder)
	}
	r.Was = without(r.Was, holder)
	return r
}

// learntAfter completes a lease that was read by what was known before: who wrote it may not have known that lease.
func (l Lease) learntAfter(known Lease) Lease {
	if known.Fence.Compare(l.After) > 0 {
		l.Was = without(with(l.Was, known.Holder), l.Holder)
	}
	return l
}

func with(names []string, name string) []string {
	if name == "" || slices.Contains(names, name) {
		return names
	}
	names = append(slices.Clone(names), name)
	return names[max(0, len(names)-mostWas):]
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}
