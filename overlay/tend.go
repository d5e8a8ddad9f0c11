package overlay

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func (s *session) openJournal(boot string) (map[plan.Key]remembered, error) {
	j, records, err := s.o.deps.State.OpenJournal("journal", boot)
	if err != nil {
		return nil, err
	}
	s.journal = j
	remembered, unknown := replay(records)
	for _, err := range unknown {
		s.o.deps.Log.Error("journal record was not understood and is passed over; what it spoke of is learnt from the kernel", "err", err)
	}
	s.foreign = len(unknown) > 0
	return remembered, nil
}

// publish tells the board and the gauges, off the attach path.
func (s *session) publish(ctx context.Context) error {
	var took time.Duration
	known := map[string]int{} // link indexes: asked for once, or each ADD would cost as many questions as there are containers
	for wait(ctx, s.published) {
		pause(ctx, max(gatherPublished, restAfter*took)) // each publication costs as much as there are containers
		began := time.Now()
		var out []container.Attachment
		indexes := map[string]int{}
		for _, a := range s.table.all() {
			made := a.NSID + " " + a.Link() // a link of that name for another namespace is another one
			index, ok := known[made]
			if !ok {
				var err error
				if index, ok, err = s.kernel.LinkIndex(a.Link()); err != nil {
					return err
				}
			}
			if ok {
				indexes[made] = index
				out = append(out, boardEntry(a, index))
			}
		}
		known = indexes
		s.o.deps.Board.Publish(out)
		s.o.attachments.Set(float64(s.table.count()))
		s.o.free.Set(float64(s.table.freeInAll()))
		s.needFromStore()
		took = time.Since(began)
	}
	return nil
}

// tendJournal brings the journal to the disk, off the attach path, and keeps it short.
func (s *session) tendJournal(ctx context.Context) error {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.journal.Sync(); err != nil {
			return err
		}
		if s.journal.Size() > compactAbove {
			if err := s.compact(); err != nil {
				return err
			}
		}
	}
}

// keepForeign sets a copy of the journal aside for a person, and goes on with what is known.
func (s *session) keepForeign() error {
	if err := s.o.deps.State.CopyAside("journal", errors.New("it holds records that this build does not know")); err != nil {
		return err
	}
	return s.compact()
}

func (s *session) compact() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	var records []any
	for _, a := range s.table.all() {
		records = append(records, attachRecord(a))
	}
	for _, a := range s.leaving.all() {
		records = append(records, attachRecord(a), detachRecord(a.Key))
	}
	return s.journal.Compact(records...)
}

func (s *session) changed() { poke(s.published) }
