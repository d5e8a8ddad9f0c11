package overlay

import (
	"context"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// leaving is what detaches leave for later, so that their answers need not wait: the links go in batches, connection
// tracking forgets the addresses, and only then are they free for others and the journal's entries end.
type leaving struct {
	mu   sync.Mutex
	list []plan.Attachment

	flushing sync.Mutex // held for a whole batch: who comes second finds the work of the first done
}

func (l *leaving) add(a plan.Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, a)
}

// done takes away the first n, whose batch has gone.
func (l *leaving) done(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.Clone(l.list[n:])
}

// all gives those that have not gone, the batch under way too: whoever asks for what one of these has must wait for it.
func (l *leaving) all() []plan.Attachment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// deleteRetired removes what was detached, in batches.
func (s *session) deleteRetired(ctx context.Context) error {
	for wait(ctx, s.retired) {
		pause(ctx, gatherRetired)
		// Not cut short by ctx: what was detached goes, also at the end.
		if err := s.flushRetired(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	if len(s.leaving.all()) == 0 {
		return nil
	}
	return s.flushRetired(context.WithoutCancel(ctx))
}

// flushRetired removes at once what was detached until now. When it returns nil, their links, flows and addresses are
// free.
func (s *session) flushRetired(ctx context.Context) error {
	s.leaving.flushing.Lock()
	defer s.leaving.flushing.Unlock()
	batch := s.leaving.all()
	steps := []plan.Step{plan.DeleteRetired{}}
	if err := s.kernel.Apply(ctx, steps); err != nil {
		return err
	}
	s.forgetFlows(ctx, batch)
	for _, a := range batch {
		if err := s.journal.Append(goneRecord(a.Key)); err != nil {
			s.o.deps.Log.Error("detach could not be journalled; the next start learns it from the kernel", "container", a.Owner, "err", err)
		}
		s.table.freeAddrs(a)
	}
	s.leaving.done(len(batch))
	if len(batch) > 0 {
		s.changed()
	}
	if s.haveFixed(batch) {
		s.needFromStore() // somebody elsewhere may wait for it
	}
	return nil
}

// forgetFlows makes connection tracking forget attachments: who gets an address next does not get their packets. A
// fault is told and no more: the entries time out by themselves.
func (s *session) forgetFlows(ctx context.Context, gone []plan.Attachment) {
	var flows []plan.Flow
	for _, a := range gone {
		flows = append(flows, plan.FlowsOf(a)...)
	}
	if len(flows) == 0 {
		return
	}
	if err := s.kernel.Apply(ctx, []plan.Step{plan.ForgetFlows{Flows: flows}}); err != nil {
		s.o.deps.Log.Error("connection tracking may still know detached containers", "err", err)
	}
}
