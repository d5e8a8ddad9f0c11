package overlay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// rememberSysctls records, once, what host-wide settings were before we changed them, so that they can be put back.
func (s *session) rememberSysctls(have map[string]string) error {
	const file = "sysctls.json"
	former := map[string]string{}
	if found, err := s.o.deps.State.ReadJSON(file, &former); found || err != nil {
		return err
	}
	return s.o.deps.State.WriteJSON(file, have)
}

// keepRight compares the host with what is wanted, on events and now and then, and puts right what differs.
func (s *session) keepRight(ctx context.Context) error {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	var last time.Time
	for ; ; last = time.Now() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.repair:
			if s.newCluster.Load() && time.Since(last) > gatherRepair {
				pause(ctx, gatherNews)
			} else {
				pause(ctx, gatherRepair)
			}
		}
		if err := s.putRight(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// passOthers sees to it that other firewalls let through what we forward: at the start, and after each change of rules.
// A fault is told once and looked at again with the next change.
func (s *session) passOthers(ctx context.Context) error {
	told := ""
	for wait(ctx, s.others) {
		pause(ctx, gatherOthers)
		s.mu.Lock()
		networks := s.networks
		s.mu.Unlock()
		added, err := s.kernel.LetThrough(networks)
		s.passes.Store(err == nil)
		for _, rule := range added {
			s.o.deps.Log.Info("another firewall drops what it does not know; containers are let through", "rule", rule)
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			s.o.deps.Log.Error("another firewall may drop what is forwarded", "err", err)
		}
	}
	return nil
}

func (s *session) putRight(ctx context.Context) error {
	if err := s.underlayMoved(); err != nil {
		return err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.putRightLocked(ctx)
}

// underlayMoved fails when this host has another way to the others than it had: a new address from DHCP, another default
// route, another MTU. Then the overlay starts anew, which is short and harms no traffic, and tells the others. While there
// is none at all, what is there stays.
func (s *session) underlayMoved() error {
	s.mu.Lock()
	was, want := s.underlay, s.cluster.Self.Addr
	s.mu.Unlock()
	if _, shared := s.o.store.(store.Shared); shared || !want.IsValid() {
		want = s.o.deps.NodeAddr
	}
	if now, err := s.kernel.FindUnderlay(want); err == nil && was.Addr.IsValid() && now != was {
		return fmt.Errorf("the underlay was %s and is %s now", was, now)
	}
	return nil
}

// putRightLocked is called with changing held.
func (s *session) putRightLocked(ctx context.Context) error {
	have, err := s.kernel.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	steps := plan.Steps(s.want(), have.WithoutRetired())
	if len(steps) == 0 {
		s.newCluster.Store(false)
		return nil
	}
	if s.newCluster.Swap(false) {
		s.o.deps.Log.Info("networks or hosts of the overlay changed", "steps", len(steps))
	} else {
		s.o.deps.Log.Warn("host networking differed from what is wanted and was put right", "steps", len(steps), "first", steps[0].String())
		s.o.repaired.Add(uint64(len(steps)))
	}
	err = s.kernel.Apply(ctx, steps)
	if errors.Is(err, unix.ENODEV) && !s.lookingAgain {
		// A device went since it was observed. Once: whatever stays so is told.
		s.lookingAgain = true
		poke(s.repair)
		return nil
	}
	s.lookingAgain = false
	return err
}
