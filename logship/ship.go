package logship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// shipper brings all streams to one sink: a reader fills batches, a deliverer hands them over, one ahead of the other.
// Nothing is read while both batches are full, so memory is bounded whatever the sink does.
type shipper struct {
	name string
	sink sink.Sink
	book *ledger.Book
	dead *deadLetters
	log  *slog.Logger

	saving sync.Mutex // from saving a position to taking it over

	mu    sync.Mutex
	queue []*cursor // to be looked at
	bell  chan struct{}

	up       atomic.Bool
	lastErr  atomic.Pointer[string]
	lastAck  atomic.Int64
	failures atomic.Uint64
	unsaved  atomic.Uint64
	total    counts
	shaped   shaped
	owing    map[*cursor]bool // a summary of what was dropped; the reader's
}

// flushTime is how long stopping may take for what was read and written already.
const flushTime = 4 * time.Second

func newShipper(name string, s sink.Sink, book *ledger.Book, dead *deadLetters, log *slog.Logger) *shipper {
	return &shipper{name: name, sink: s, book: book, dead: dead, log: log.With("sink", name), bell: make(chan struct{}, 1), owing: map[*cursor]bool{}}
}

// wake queues a cursor; once is enough until the reader takes it.
func (s *shipper) wake(c *cursor) {
	s.mu.Lock()
	if !c.queued {
		c.queued = true
		s.queue = append(s.queue, c)
	}
	s.mu.Unlock()
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

func (s *shipper) pop() *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // its memory is given back after a burst
		return nil
	}
	c := s.queue[0]
	s.queue = s.queue[1:]
	c.queued = false
	return c
}

func (s *shipper) acked(c *cursor) place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.acked
}

// run works until ctx ends and what was read by then is delivered, or flushTime has passed.
func (s *shipper) run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(flushTime, cancel) })()
	defer s.sink.Close()

	if !s.resume(ctx) {
		return nil
	}
	full, free := make(chan *batch), make(chan *batch, 2)
	free <- newBatch()
	free <- newBatch()
	var delivered sync.WaitGroup
	delivered.Go(func() {
		defer cancel()
		for b := range full {
			if !s.deliver(ctx, hard, b) {
				return
			}
			b.reset()
			free <- b
		}
	})
	s.read(ctx, hard, full, free)
	close(full)
	delivered.Wait()
	return nil
}

// resume repeats until the sink stands where the last saved mark says.
func (s *shipper) resume(ctx context.Context) bool {
	for try := 0; ; try++ {
		mark, err := s.sink.Resume(ctx, s.book.Mark(s.name))
		if err == nil {
			s.save(mark, nil)
			return true
		}
		s.failed(err)
		if !sleep(ctx, backoff(try)) {
			return false
		}
	}
}

// read fills batches in turn from the queued cursors.
func (s *shipper) read(ctx, hard context.Context, full chan<- *batch, free <-chan *batch) {
	var sent time.Time
	for {
		var b *batch
		select {
		case b = <-free:
		case <-hard.Done():
			return
		}
		for b.empty() {
			// Under load the pace gathers lines; after a quiet time it has passed already.
			if ctx.Err() == nil {
				sleep(ctx, s.sink.Pace()-time.Since(sent))
			}
			if s.fill(b); !b.empty() {
				break
			}
			if s.stopped(ctx, b) {
				return // stopping, and nothing is left to read
			}
			if ctx.Err() != nil {
				break
			}
			select {
			case <-s.bell:
			case <-ctx.Done():
			}
		}
		sent = time.Now()
		select {
		case full <- b:
		case <-hard.Done():
			return
		}
	}
}

// fill takes from each queued cursor in turn until the batch is full or nobody has more.
func (s *shipper) fill(b *batch) {
	now := time.Now().UnixNano()
	for !b.full() {
		c := s.pop()
		if c == nil {
			return
		}
		if c.excluded() {
			continue
		}
		c.reshape(b, now)
		o, err := c.read(b, now)
		c.after(b, now, o == wait && err == nil)
		switch {
		case err != nil:
			s.log.Warn("log could not be read; it is tried again", "stream", c.stream.key, "err", err)
			time.AfterFunc(time.Second, func() { s.wake(c) })
		case o == more:
			s.wake(c)
		case o == later:
			time.AfterFunc(quiet, func() { s.wake(c) })
		}
	}
}

// deliver hands b over until the sink has all of it. It answers false when hard ended first, or a try failed after soft
// had ended: a dead sink does not keep the agent from stopping.
func (s *shipper) deliver(soft, hard context.Context, b *batch) (ok bool) {
	defer func() {
		if ok {
			s.passOver(b.skips)
		}
	}()
	if len(b.records) == 0 {
		return true
	}
	done := 0
	for try := 0; done < len(b.records); try++ {
		s.sent(b.marks[done:])
		receipt, err := s.sink.Deliver(hard, b.records[done:], s.intend(b.marks[done:]))
		s.total.doubled.Add(uint64(receipt.Resent))
		if len(receipt.Rejected) > 0 && !s.bury(soft, b.records[done:], receipt.Rejected) {
			return false
		}
		if receipt.Acked > 0 {
			s.settle(b.marks[done:done+receipt.Acked], receipt.Mark)
			done, try = done+receipt.Acked, 0
		}
		if err == nil && done == len(b.records) {
			break
		}
		if err == nil {
			err = fmt.Errorf("sink took %d records and gave no reason for leaving %d", receipt.Acked, len(b.records)-done)
		}
		s.doubt(b.marks[done:], receipt)
		s.failed(err)
		pause := backoff(try)
		var later *sink.Later
		if errors.As(err, &later) {
			pause = max(pause, later.After)
		}
		if !sleep(soft, pause) {
			return false
		}
	}
	if !s.up.Swap(true) {
		s.log.Info("sink takes records", "class", s.sink.Class())
	}
	return true
}

// bury keeps what the receiver refused for good in the dead-letter file, and repeats that until it is kept.
func (s *shipper) bury(ctx context.Context, records []sink.Record, rejected []sink.Rejection) bool {
	if s.total.rejected.Add(uint64(len(rejected))) == uint64(len(rejected)) {
		s.log.Warn("sink refused records for good; they are kept", "path", s.dead.path, "records", len(rejected), "reason", rejected[0].Reason)
	}
	for try := 0; ; try++ {
		err := s.dead.add(records, rejected)
		if err == nil {
			return true
		}
		s.failed(err)
		if !sleep(ctx, backoff(try)) {
			return false
		}
	}
}

// intend saves where the positions will be once marks are acknowledged, for a sink that can prove it after a kill.
func (s *shipper) intend(marks []mark) (written func(string)) {
	if _, ok := s.sink.(sink.Confirmer); !ok {
		return nil
	}
	s.saved(s.book.Intend(s.name, s.positions(marks)))
	return func(proof string) { s.saved(s.book.Sent(s.name, proof)) }
}

// confirm settles what was on its way when the former run was killed. It comes before the cursors take their places.
func (s *shipper) confirm(ctx context.Context) {
	at, proof, open := s.book.Intent(s.name)
	if !open {
		return
	}
	if c, ok := s.sink.(sink.Confirmer); ok && proof != "" && c.Confirm(ctx, proof) {
		s.saved(s.book.Ack(s.name, "", at))
		return
	}
	s.log.Info("the agent was killed while a batch was on its way; it is sent again and may arrive twice", "streams", len(at), "written", proof != "")
	s.saved(s.book.Ack(s.name, "", nil))
}

// positions gives where each stream stands after its last mark.
func (s *shipper) positions(marks []mark) map[string]ledger.Position {
	at := map[string]ledger.Position{}
	for i := range marks {
		if c := marks[i].cursor; i == len(marks)-1 || marks[i+1].cursor != c {
			if p, ok := c.stream.position(marks[i].place()); ok {
				at[c.stream.key] = p
			}
		}
	}
	return at
}

// settle moves the positions of acknowledged records and saves them in one write, before anything else is sent.
func (s *shipper) settle(marks []mark, note string) {
	s.saving.Lock()
	s.save(note, s.positions(marks))
	s.lastAck.Store(time.Now().UnixNano())
	s.mu.Lock()
	for i := range marks {
		c := marks[i].cursor
		c.acked = marks[i].place()
		c.count.acked.Add(1)
		s.total.ackedBytes.Add(uint64(marks[i].bytes))
	}
	s.mu.Unlock()
	s.saving.Unlock()
	s.total.acked.Add(uint64(len(marks)))
	for i := range marks {
		if c := marks[i].cursor; c.inflight.Add(-1) == 0 {
			c.check()
		}
	}
}

// moved saves a stream's position anew after its file was truncated and a copy was found. Safe for concurrent use.
func (s *shipper) moved(c *cursor) {
	s.saving.Lock()
	defer s.saving.Unlock()
	if p, ok := c.stream.position(s.acked(c)); ok {
		s.saved(s.book.Moved(s.name, map[string]ledger.Position{c.stream.key: p}))
	}
}

// sent counts what is handed to the sink, again for what is handed over again.
func (s *shipper) sent(marks []mark) {
	for i := range marks {
		marks[i].cursor.count.sent.Add(1)
	}
	s.total.sent.Add(uint64(len(marks)))
}

func (s *shipper) save(note string, at map[string]ledger.Position) {
	s.saved(s.book.Ack(s.name, note, at))
}

func (s *shipper) saved(err error) {
	if err != nil && s.unsaved.Add(1)%1000 == 1 {
		s.log.Error("log positions could not be saved; a crash now would send lines again", "err", err)
	}
}

// doubt counts what will be, or was, sent twice.
func (s *shipper) doubt(rest []mark, r sink.Receipt) {
	for i := range rest[:min(r.Unsure, len(rest))] {
		rest[i].cursor.count.doubled.Add(1)
	}
	s.total.doubled.Add(uint64(r.Unsure))
}

func (s *shipper) failed(err error) {
	text := err.Error()
	s.lastErr.Store(&text)
	if s.failures.Add(1); s.up.Swap(false) || s.failures.Load() == 1 {
		s.log.Warn("sink takes nothing; lines wait in their files", "err", err)
	}
}

// backoff grows from 50 ms to 5 s, with jitter so that many hosts do not come back as one.
func backoff(try int) time.Duration {
	d := 50 * time.Millisecond << min(try, 7)
	return min(d, 5*time.Second)/2 + rand.N(min(d, 5*time.Second)/2)
}

// sleep waits for d and answers false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
