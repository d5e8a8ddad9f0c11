package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// ErrNotAttached is returned by Check for a container that has no attachment.
var ErrNotAttached = errors.New("not attached")

// Said is what plugins after ours left of our result: the runtime hands it back. What they changed, and told, is no
// difference.
type Said struct {
	MTU    int            // of the container's interface; 0: not said
	Routes []netip.Prefix // destinations; meant only where Known
	Known  bool           // there is such a result
}

// Check compares an attachment with what the kernel has and names each difference. No differences and nil is well.
func (o *Overlay) Check(ctx context.Context, key plan.Key, ns plan.Namespace, said Said) (plan.Attachment, []string, error) {
	s, err := o.current(ctx)
	if err != nil {
		return plan.Attachment{}, nil, err
	}
	a, ok := s.table.get(key)
	if !ok {
		return a, nil, fmt.Errorf("check %s: %w", key, ErrNotAttached)
	}
	i, err := s.kernel.Inspect(ctx, a, ns)
	if err != nil {
		return a, nil, fmt.Errorf("check %s: %w", key, err)
	}
	said.excuse(a, &i)
	return a, plan.Differences(a, i), nil
}

// excuse makes i look as if nobody after us had changed what he told.
func (said Said) excuse(a plan.Attachment, i *plan.Inspection) {
	if said.MTU > 0 && i.Inner.MTU == said.MTU {
		i.Inner.MTU = a.MTU
	}
	for _, r := range plan.ContainerRoutes(a) {
		if said.Known && r.Via.IsValid() && !slices.Contains(said.Routes, r.Dst) {
			i.Routes = append(i.Routes, r)
		}
	}
}
