package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/overlay"
)

// takeRequest is what `net take` asks.
type takeRequest struct {
	Address  netip.Addr `json:"address"`
	TakeOver bool       `json:"take_over"` // from a silent host
}

func takeRoute(o *overlay.Overlay) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var t takeRequest
		if err := api.Body(r, &t); err != nil {
			return nil, err
		}
		if err := o.Take(r.Context(), t.Address, t.TakeOver); err != nil {
			return nil, api.Errorf(http.StatusConflict, "%v", err)
		}
		return t, nil
	}
}

func (f *flags) netTake(e env, address string, takeOver bool) error {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return misuse("expected an address such as 10.42.240.5, found %q", address)
	}
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.Post(ctx, "/v1/networks/take", takeRequest{addr, takeOver}, nil); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s is this host's now; a container that asks for it gets it; it is given back after ten minutes without one\n", addr)
	return nil
}

// blocksAndAddresses names blocks, and counts single addresses, of which there may be many.
func blocksAndAddresses(blocks []netip.Prefix) string {
	larger := slices.DeleteFunc(slices.Clone(blocks), netip.Prefix.IsSingleIP)
	if n := len(blocks) - len(larger); n > 0 {
		return strings.TrimPrefix(fmt.Sprintf("%s,+%d", join(larger), n), ",")
	}
	return join(larger)
}
