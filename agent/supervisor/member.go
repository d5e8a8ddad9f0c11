package supervisor

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

const (
	backoffFirst = 250 * time.Millisecond
	backoffMost  = 30 * time.Second
	healthyAfter = time.Minute // a run that lasts this long forgives the faults before it
	settleAfter  = time.Second // a part that does not say agent.Ready counts as running after this
)

// member is one part and how it fares. Its health is guarded by the Supervisor's lock.
type member struct {
	s      *Supervisor
	part   agent.Part
	ctx    context.Context // ends when it is this part's turn to stop, not when Run's context ends
	cancel context.CancelFunc
	done   chan struct{}

	health   PartHealth
	restarts *stat.Counter
	up       *stat.Gauge
}

func (s *Supervisor) newMember(ctx context.Context, p agent.Part) *member {
	m := &member{s: s, part: p, done: make(chan struct{}), health: PartHealth{Name: p.Name, State: Starting, Since: time.Now()}}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	label := stat.Label{Name: "part", Value: p.Name}
	m.restarts = s.reg.Counter("fairlead_supervisor_restarts_total", "Times the part was started again after a fault.", label)
	m.up = s.reg.Gauge("fairlead_supervisor_up", "1 while the part runs, 0 while it starts, backs off or has stopped.", label)
	return m
}

// keepRunning runs the part again and again until its context ends.
func (m *member) keepRunning() {
	defer close(m.done)
	defer m.cancel()
	faults := 0
	for {
		began := time.Now()
		err := m.runOnce(faults > 0)
		if m.ctx.Err() != nil {
			m.stopped(err)
			return
		}
		if time.Since(began) >= healthyAfter {
			faults = 0
		}
		wait := backoff(faults, rand.Float64())
		m.faulted(err, wait, faults > 0)
		faults++
		select {
		case <-m.ctx.Done():
			m.stopped(nil)
			return
		case <-time.After(wait):
		}
		m.restarts.Inc()
		m.set(func(h *PartHealth) { h.State = Starting; h.Restarts++ })
	}
}

// runOnce calls the part's Run in a goroutine of its own and gives its fault; a panic, a return before the end and a
// goroutine that vanished are faults too.
func (m *member) runOnce(afterFault bool) error {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	settled := time.AfterFunc(settleAfter, func() { m.running(ctx) })
	defer settled.Stop()
	if afterFault {
		healthy := time.AfterFunc(healthyAfter, func() { m.s.log.Info("part recovered", "part", m.part.Name) })
		defer healthy.Stop()
	}

	result := make(chan error, 1)
	go func() {
		err := errExited
		defer func() { result <- err }()
		err = agent.Go(agent.WithReady(ctx, func() { m.running(ctx) }), m.part.Run)
	}()
	err := <-result
	if err == nil && ctx.Err() == nil {
		err = errReturned
	}
	return err
}

// running notes that this run, whose context is ctx, is up. A late word of a run that has ended changes nothing.
func (m *member) running(ctx context.Context) {
	m.set(func(h *PartHealth) {
		if ctx.Err() == nil && h.State == Starting {
			h.State = Running
		}
	})
}

// faulted notes a fault. The same one again in a row is said once; the metric counts the rest.
func (m *member) faulted(err error, wait time.Duration, inARow bool) {
	log := m.s.log.With("part", m.part.Name, "err", err, "restart_in", wait.Round(time.Millisecond))
	if p, ok := errors.AsType[*agent.PanicError](err); ok {
		log = log.With("stack", string(p.Stack))
	}
	again := false
	m.set(func(h *PartHealth) {
		again = inARow && h.LastError == err.Error()
		h.State, h.LastError, h.LastFault = BackingOff, err.Error(), time.Now()
	})
	if again {
		log.Debug("part faulted again")
		return
	}
	log.Error("part faulted")
}

func (m *member) stopped(err error) {
	m.set(func(h *PartHealth) {
		h.State = Stopped
		if err != nil {
			h.LastError, h.LastFault = err.Error(), time.Now()
		}
	})
	if err != nil {
		m.s.log.Error("part stopped with a fault", "part", m.part.Name, "err", err)
		return
	}
	m.s.log.Debug("part stopped", "part", m.part.Name)
}

// set changes the health under the lock and lets everybody know.
func (m *member) set(change func(*PartHealth)) {
	m.s.mu.Lock()
	before := m.health.State
	change(&m.health)
	if m.health.State != before {
		m.health.Since = time.Now()
	}
	up := 0.0
	if m.health.State == Running {
		up = 1
	}
	m.up.Set(up)
	m.s.mu.Unlock()
	m.s.wake()
}

func (m *member) stoppedWithin(d time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(d):
	}
	select { // both may have come at once
	case <-m.done:
		return true
	default:
		return false
	}
}

// backoff is the wait after so many faults in a row: it doubles up to a bound, and a random part of up to a half is
// taken off (r is in [0,1)), so that parts which fell together do not come back together.
func backoff(faults int, r float64) time.Duration {
	d := backoffMost
	if faults < 16 { // beyond that the shift would overflow
		d = min(backoffMost, backoffFirst<<faults)
	}
	return d - time.Duration(r*float64(d)/2)
}
