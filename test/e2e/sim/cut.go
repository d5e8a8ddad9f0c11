package sim

import "context"

// Cut takes a host of a cluster with a bridge off it without its noticing, as a switch does that fails: its own link
// stays up. It may be called twice.
func (c *Cluster) Cut(ctx context.Context, h *Host) error {
	return c.wire.runAll(ctx, "bridge link set dev "+h.Name+" state 0") // disabled (bridge(8))
}

// Heal is the end of Cut. It may be called twice.
func (c *Cluster) Heal(ctx context.Context, h *Host) error {
	return c.wire.runAll(ctx, "bridge link set dev "+h.Name+" state 3") // forwarding
}
