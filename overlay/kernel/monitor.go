package kernel

import (
	"context"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// WatchLinks calls gone with the name of each of our links that disappears, until ctx ends or the subscription breaks.
// When events were lost it calls gone(""): then anything may have gone. It blocks; gone must be quick.
func (c *Conn) WatchLinks(ctx context.Context, gone func(name string)) error {
	updates, done := make(chan netlink.LinkUpdate, 256), make(chan struct{})
	defer close(done)
	broken := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case broken <- err:
			default:
			}
		},
		ReceiveBufferSize: 4 << 20,
	})
	if err != nil {
		return fmt.Errorf("subscribe to link events: %w", err)
	}
	gone("") // what went before the subscription stood
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return fmt.Errorf("follow link events: %w", err)
		case u, open := <-updates:
			if !open {
				return fmt.Errorf("follow link events: the subscription ended")
			}
			name := u.Link.Attrs().Name
			ours := strings.HasPrefix(name, plan.LinkPrefix) || strings.HasPrefix(name, plan.VXLANPrefix)
			if u.Header.Type == unix.RTM_DELLINK && ours {
				gone(name)
			}
		}
	}
}
