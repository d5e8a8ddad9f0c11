package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// fate is what becomes of one container in a round.
type fate int

const (
	leftAlone    fate = iota
	killed            // with its shim; its record is removed
	adrift            // only its shim is killed; it lives on
	exited            // killed, its record stays
	forgotten         // ended in order, its record removed, its network left
	protectedBox      // as killed, under the label fairlead.protect
	fates
)

// round starts containers, lets chance deal with them and with containerd and the agent, and compares what the reaper says
// and does with what is true.
func (w *world) round(ctx context.Context, rng *rand.Rand) (wrong, missed []string, err error) {
	boxes := map[*box]fate{}
	for i := range 4 {
		f := fate(rng.IntN(int(fates)))
		if i == 0 {
			f = killed
		}
		var labels []string
		if f == protectedBox {
			labels = []string{"fairlead.protect=true"}
		}
		b, err := w.start(ctx, labels...)
		if err != nil {
			return nil, nil, err
		}
		boxes[b] = f
	}
	if _, err := w.settled(ctx); err != nil {
		return nil, nil, err
	}
	down := rng.IntN(2) == 0
	if down {
		w.containerd.Kill()
		if err := w.answers(ctx, false); err != nil {
			return nil, nil, err
		}
	}
	for b, f := range boxes {
		if err := w.meet(ctx, b, f, down); err != nil {
			return nil, nil, err
		}
	}
	if rng.IntN(2) == 0 {
		if err := errors.Join(w.stop(), w.startAgent(ctx)); err != nil {
			return nil, nil, err
		}
	}
	if down {
		if wrong, err = w.whileDown(ctx); err != nil {
			return wrong, nil, err
		}
		if err := w.containerd.Start(ctx); err != nil {
			return wrong, nil, err
		}
	}
	if err := w.answers(ctx, true); err != nil {
		return wrong, nil, err
	}
	for b, f := range boxes {
		if f == killed || f == protectedBox || f == forgotten {
			if err := w.forget(ctx, b); err != nil {
				return wrong, nil, err
			}
		}
	}
	w2, missed, err := w.judge(ctx, boxes)
	return append(wrong, w2...), missed, errors.Join(err, w.tidy(ctx, boxes))
}

// meet lets a container meet its fate.
func (w *world) meet(ctx context.Context, b *box, f fate, down bool) error {
	switch f {
	case killed, protectedBox:
		return errors.Join(w.killShim(b), w.killInit(b), w.stopped(ctx, b, down))
	case exited, forgotten:
		return errors.Join(w.killInit(b), w.stopped(ctx, b, down))
	case adrift:
		b.alive = false // containerd ends it as soon as it sees the dead shim, now or when it is back
		return w.killShim(b)
	}
	return nil
}

// stopped waits until containerd knows and removes the task that is left.
func (w *world) stopped(ctx context.Context, b *box, down bool) error {
	if down {
		return nil // it clears dead tasks when it comes back
	}
	err := w.await(ctx, b.id+" has ended", func(s *container.Snapshot) bool {
		c := w.find(s, b)
		return c == nil || c.State == container.Stopping || c.State == container.Exited
	})
	if err == nil {
		_, _ = w.containerd.Ctr(ctx, "default", "task", "rm", "--force", b.id) // containerd may have removed it with its shim
	}
	return err
}

// whileDown observes and cleans while containerd does not answer: nothing may happen.
func (w *world) whileDown(ctx context.Context) (wrong []string, err error) {
	verdicts, err := w.settled(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range verdicts {
		if v.Decision != reap.Keep {
			wrong = append(wrong, fmt.Sprintf("while containerd is down: %s %s: %s", v.Resource.Kind, v.Resource.ID, v.Reason))
		}
	}
	_, err = w.reaper.Clean(ctx, nil, true)
	return wrong, err
}

// judge cleans and compares with the truth.
func (w *world) judge(ctx context.Context, boxes map[*box]fate) (wrong, missed []string, err error) {
	verdicts, err := w.settled(ctx)
	if err != nil {
		return nil, nil, err
	}
	found := map[*box]map[reap.Kind]bool{}
	for _, v := range verdicts {
		b := w.boxOf(v)
		if v.Decision != reap.Sweep {
			continue
		}
		if b == nil || !b.gone || boxes[b] == protectedBox {
			wrong = append(wrong, fmt.Sprintf("%s %s: %s", v.Resource.Kind, v.Resource.ID, v.Reason))
			continue
		}
		if found[b] == nil {
			found[b] = map[reap.Kind]bool{}
		}
		found[b][v.Resource.Kind] = true
	}
	for b, f := range boxes {
		if dead := f == killed || f == forgotten; dead && (!found[b][reap.Attachment] || !found[b][reap.NetNS]) {
			missed = append(missed, fmt.Sprintf("%s (fate %d): only %v of %+v", b.id, f, found[b], verdicts))
		}
	}
	done, err := w.reaper.Clean(ctx, nil, true)
	if err != nil {
		return wrong, missed, err
	}
	for _, o := range done {
		if o.Result == reap.Failed {
			missed = append(missed, fmt.Sprintf("%s %s: %s", o.Resource.Kind, o.Resource.ID, o.Error))
		}
	}
	w3, m3 := w.compare(boxes)
	return append(wrong, w3...), append(missed, m3...), nil
}

// compare looks at the host itself: what is wanted must be there, what is not must be gone.
func (w *world) compare(boxes map[*box]fate) (wrong, missed []string) {
	attached := map[string]bool{}
	for _, a := range w.overlay.Attachments() {
		attached[a.Owner] = true
	}
	for b, f := range boxes {
		_, err := os.Stat(b.netns())
		has := err == nil
		switch dead := f == killed || f == forgotten; {
		case dead && (has || attached[b.key().Owner]):
			missed = append(missed, fmt.Sprintf("%s was cleaned and is still there: namespace %v, address %v", b.id, has, attached[b.key().Owner]))
		case !dead && (!has || !attached[b.key().Owner]):
			wrong = append(wrong, fmt.Sprintf("%s (fate %d) lost its namespace (%v) or address (%v)", b.id, f, has, attached[b.key().Owner]))
		}
		if _, alive := host.DefaultRoot().Process(b.pid); b.alive && !alive {
			wrong = append(wrong, fmt.Sprintf("%s (fate %d) lost its process %d", b.id, f, b.pid))
		}
	}
	return wrong, missed
}

// tidy takes everything of a round away, so that the next begins anew.
func (w *world) tidy(ctx context.Context, boxes map[*box]fate) error {
	var errs []error
	for b := range boxes {
		if b.alive {
			errs = append(errs, w.killInit(b))
		}
		_, _ = w.containerd.Ctr(ctx, "default", "task", "rm", "--force", b.id) // it may be gone with its shim
		if !b.gone {
			_, err := w.containerd.Ctr(ctx, "default", "container", "rm", b.id)
			errs = append(errs, err)
		}
		errs = append(errs, w.overlay.Detach(ctx, b.key(), ""))
		if _, err := os.Stat(b.netns()); err == nil {
			errs = append(errs, dropNetNS(b.netns()))
		}
		delete(w.known, b.id)
	}
	return errors.Join(errs...)
}
