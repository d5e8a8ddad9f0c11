package overlay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Owned gives every attachment with what it shows of its container. It makes Overlay a reap.Owner.
func (o *Overlay) Owned(ctx context.Context) ([]reap.Resource, error) {
	s, err := o.current(ctx)
	if err != nil {
		return nil, err
	}
	inside, err := o.deps.Root.ByNetNS()
	if err != nil {
		return nil, err
	}
	var out []reap.Resource
	for _, a := range s.table.all() {
		out = append(out, owned(a, inside))
	}
	return out, nil
}

func owned(a plan.Attachment, inside map[host.NetNS][]int) reap.Resource {
	ns := boardEntry(a, 0).NetNS
	return reap.Resource{
		Kind: reap.Attachment, ID: a.Key.String(), Instance: fmt.Sprintf("%s %s", a.NSID, a.Addr), Where: a.Link(),
		Claim: reap.Claim{CNI: a.Owner, NetNS: ns}, PIDs: inside[ns],
		Evidence: []string{fmt.Sprintf("address %s on network %s, link %s, made for %s", a.Addr, a.Network, a.Link(), strings.TrimSpace(a.Owner+" "+a.NetNS))},
	}
}

var errInUse = errors.New("in use")

// Release ends the attachment: route, link and address. It succeeds when it is gone or has been made anew, and fails
// while a process is in its namespace.
func (o *Overlay) Release(ctx context.Context, r reap.Resource) error {
	have, err := o.Owned(ctx)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.ID != r.ID || h.Instance != r.Instance {
			continue
		}
		if len(h.PIDs) > 0 {
			return fmt.Errorf("attachment %s: %w by processes %v", r.ID, errInUse, h.PIDs)
		}
		i := strings.LastIndexByte(r.ID, '/')
		return o.Detach(ctx, plan.Key{Owner: r.ID[:i], IfName: r.ID[i+1:]}, "")
	}
	return nil
}
