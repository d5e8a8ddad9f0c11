package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// GC ends the attachments to a network that a runtime made (Request.Runtime) and does not name as valid. One that is
// still in use is kept, logged and counted: when its namespace lives and some runtime lists a container in it, or when
// nobody said whose it is and a process lives in it. What can be ended is ended, whatever else fails.
func (o *Overlay) GC(ctx context.Context, network, runtime string, valid []plan.Key) error {
	s, err := o.current(ctx)
	if err != nil {
		return err
	}
	if _, err := s.network(network); err != nil {
		return err
	}
	for _, a := range unclaimed(s.table.all(), network, runtime, valid) {
		if err := s.claim(a.Key, runtime); err != nil {
			return fmt.Errorf("collect attachments to %s: %w", network, err)
		}
	}
	stale := unnamed(s.table.all(), network, runtime, valid)
	if len(stale) == 0 {
		return nil
	}
	inside, err := o.deps.Root.ByNetNS()
	if err != nil {
		return fmt.Errorf("collect attachments to %s: %w", network, err)
	}
	var listed func(host.NetNS) []*container.Container
	if o.deps.Containers != nil {
		listed = o.deps.Containers.Snapshot().ByNetNS
	}
	var errs []error
	for _, a := range stale {
		if why := inUse(a, inside, listed); why != "" {
			o.spared.Inc()
			o.deps.Log.Warn("attachment kept that its runtime no longer names", "container", a.Owner, "network", network, "addr", a.Addr, "runtime", runtime, "why", why)
			continue
		}
		// The namespace is named too: a container that was attached anew meanwhile is another one.
		if err := s.detach(ctx, a.Key, a.NSID, "no longer named by its runtime"); err != nil {
			errs = append(errs, fmt.Errorf("collect %s: %w", a.Key, err))
		}
	}
	return errors.Join(errs...)
}

// unnamed gives the attachments of a network and a runtime that are not among valid.
func unnamed(all []plan.Attachment, network, runtime string, valid []plan.Key) []plan.Attachment {
	keep := map[plan.Key]bool{}
	for _, k := range valid {
		keep[k] = true
	}
	return slices.DeleteFunc(all, func(a plan.Attachment) bool {
		return a.Network != network || a.Runtime != runtime || keep[a.Key]
	})
}

// unclaimed gives the attachments to a network of which nobody knows whose they are (adopted, or made before there were
// owners) and that a runtime names as its own.
func unclaimed(all []plan.Attachment, network, runtime string, valid []plan.Key) []plan.Attachment {
	if runtime == "" {
		return nil
	}
	return slices.DeleteFunc(all, func(a plan.Attachment) bool {
		return a.Network != network || a.Runtime != "" || !slices.Contains(valid, a.Key)
	})
}

// claim notes whose an attachment is, unless that is known: that runtime's later GC speaks of it.
func (s *session) claim(key plan.Key, runtime string) error {
	defer s.keys.lock(key)()
	a, ok := s.table.get(key)
	if !ok {
		return nil
	}
	return s.learn(&a, a.NetNS, runtime)
}

// inUse says why an attachment must not be taken from whoever has it; "" when nothing speaks for that.
func inUse(a plan.Attachment, inside map[host.NetNS][]int, listed func(host.NetNS) []*container.Container) string {
	ns := boardEntry(a, 0).NetNS
	pids := inside[ns]
	if listed != nil {
		for _, c := range listed(ns) {
			// Those known by their address alone are listed by nobody but us.
			if c.Runtime != "cni" && c.Alive() && len(pids) > 0 {
				return fmt.Sprintf("%s lists %s, which runs in its namespace", c.Runtime, c.ID.Short())
			}
		}
	}
	if a.Runtime == "" && len(pids) > 0 {
		return fmt.Sprintf("process %d lives in its namespace, and without the key owner nobody knows whose it is", pids[0])
	}
	return ""
}
