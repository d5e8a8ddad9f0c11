package overlay

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/overlay/ipam"
)

// Admits returns nil when an attachment to the network could be made now; else why not: an error that wraps ErrNotReady,
// an *UnknownNetworkError, or one that wraps ipam.ErrExhausted.
func (o *Overlay) Admits(ctx context.Context, network string) error {
	s, err := o.current(ctx)
	if err != nil {
		return err
	}
	if _, err := s.network(network); err != nil {
		return err
	}
	if s.table.freeOf(network) == 0 {
		return fmt.Errorf("network %s: %w", network, ipam.ErrExhausted)
	}
	return nil
}
