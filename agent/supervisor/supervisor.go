// Package supervisor keeps the agent's parts running and tells whether they are well.
//
//	Run ─┬─ overlay   starting ─> running ─> (fault) backing-off ─> starting ...   siblings untouched
//	     ├─ metrics      │           └─ after a healthy minute the back-off begins anew
//	     └─ api          └─ after agent.Ready, or a second
//
// One failing part never stops another: there is no shared cancel (not errgroup.WithContext). It owns the agent's
// words with systemd (READY, WATCHDOG, STOPPING, RELOADING). It stores nothing; after a crash systemd starts the
// agent again and every part starts anew from what the host shows.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

const (
	stopEach  = 5 * time.Second  // what one part may take to stop
	stopAll   = 15 * time.Second // what all may take together: well below systemd's 90 s
	stopGrace = time.Second      // of stopAll, kept for parts whose turn did not come
)

// Supervisor runs parts. Its methods are safe for concurrent use; Run is called once.
type Supervisor struct {
	// Notify is systemd's ear, nil outside systemd. It is set before Run.
	Notify *Notifier

	log       *slog.Logger
	reg       *stat.Registry
	changed   chan struct{} // a part's state, or the caller's readiness, has changed; holds one
	reloading sync.Mutex

	mu        sync.Mutex
	members   []*member
	ready     bool // the caller has said so
	announced bool // systemd has been told so
}

// New makes a Supervisor that counts in reg. It starts nothing.
func New(log *slog.Logger, reg *stat.Registry) *Supervisor {
	return &Supervisor{log: log, reg: reg, changed: make(chan struct{}, 1)}
}

// Run starts every part and keeps it running until ctx ends. Then it stops them one by one, the last of the list
// first, so list what others need first. It returns nil when all have stopped, and a *LateError that names those
// which did not within the bound: their goroutines are left behind, the process should end.
func (s *Supervisor) Run(ctx context.Context, parts ...agent.Part) error {
	members := make([]*member, len(parts))
	for i, p := range parts {
		members[i] = s.newMember(ctx, p)
	}
	s.mu.Lock()
	s.members = members
	s.mu.Unlock()
	for _, m := range members {
		go m.keepRunning()
	}
	s.watch(ctx)
	s.say("STOPPING=1")
	return s.stop(members)
}

// watch is the supervisor's loop while the parts run: it tells systemd when all do, and that this loop still turns.
func (s *Supervisor) watch(ctx context.Context) {
	var beat <-chan time.Time
	if every := s.Notify.WatchdogInterval() / 2; every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		beat = ticker.C
	}
	status := ""
	for {
		if now, _ := s.summary(); now != status {
			status = now
			s.say("STATUS=" + status)
		}
		if s.becameReady() {
			s.say("READY=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-beat:
			s.Health() // a lock that is never given back must silence the watchdog
			s.say("WATCHDOG=1")
		}
	}
}

// Ready says that the caller has done what it wanted to do before the agent counts as started. systemd is told once
// every part runs too. It may be called before Run, and twice.
func (s *Supervisor) Ready() {
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	s.wake()
}

// becameReady is true once: when the caller is ready and each part has come up or has faulted for the first time. A
// part that cannot come up must not keep systemd from hearing of the others: it would end them all after its timeout,
// again and again. The fault stands in STATUS.
func (s *Supervisor) becameReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announced || !s.ready || len(s.members) == 0 {
		return false
	}
	for _, m := range s.members {
		if m.health.State == Starting && m.health.LastFault.IsZero() {
			return false
		}
	}
	s.announced = true
	return true
}

func (s *Supervisor) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Supervisor) say(what string) {
	if err := s.Notify.Send(what); err != nil {
		s.log.Warn("systemd was not told", "message", what, "err", err)
	}
}

// stop ends the members, the last first, each within its bound and all within theirs.
func (s *Supervisor) stop(members []*member) error {
	var late []string
	end := time.Now().Add(stopAll)
	inOrder := end.Add(-stopGrace)
	for i := len(members) - 1; i >= 0; i-- {
		m := members[i]
		m.cancel()
		began, limit := time.Now(), inOrder
		if !began.Before(inOrder) { // no time is left for an order
			for _, rest := range members[:i] {
				rest.cancel()
			}
			limit = end
		}
		if !m.stoppedWithin(min(stopEach, limit.Sub(began))) {
			late = append(late, m.part.Name)
			s.log.Error("part did not stop in time", "part", m.part.Name, "took", time.Since(began))
		}
	}
	if len(late) > 0 {
		return &LateError{Parts: late}
	}
	return nil
}

// LateError names the parts that did not stop within the bound.
type LateError struct{ Parts []string }

func (e *LateError) Error() string {
	return fmt.Sprintf("stop parts: late were %s", strings.Join(e.Parts, ", "))
}

var (
	errReturned = errors.New("returned before it was told to stop")
	errExited   = errors.New("its goroutine ended (runtime.Goexit)")
)
