package container

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Attachment is one container on one network, as the overlay publishes it.
type Attachment struct {
	Owner   string       `json:"owner"`            // the id under which it was attached: CNI_CONTAINERID, Docker's endpoint, an operator's word
	Network string       `json:"network"`          // fairlead network name
	Addrs   []netip.Addr `json:"addrs,omitempty"`  // the container's addresses on that network
	Link    Link         `json:"link"`             // host end
	IfName  string       `json:"ifname,omitempty"` // name inside the container
	NetNS   host.NetNS   `json:"netns,omitzero"`
	Path    string       `json:"path,omitempty"` // the namespace path that was given, for people
}

// Board is where the overlay says who has which address. The Inventory joins it to containers by network namespace.
// It is safe for concurrent use.
type Board struct {
	mu      sync.Mutex
	entries []Attachment
	changed func()
}

// Publish replaces all that the board says. The caller must not modify entries afterwards. It does not block.
func (b *Board) Publish(entries []Attachment) {
	b.mu.Lock()
	b.entries = entries
	notify := b.changed
	b.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// Attachments gives what was last published. The result is the caller's.
func (b *Board) Attachments() []Attachment {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.entries)
}

// onChange sets the function that Publish calls; the Inventory uses it. It must not block.
func (b *Board) onChange(f func()) {
	b.mu.Lock()
	b.changed = f
	b.mu.Unlock()
}
