// Package sinktest is the one suite that every sink driver runs, and the receivers it needs.
//
// It owns what a test makes and leaves nothing.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// Harness is one receiver and the driver that is tested against it.
type Harness struct {
	// New makes a driver for the receiver; again after Close, as a restarted agent does.
	New func() sink.Sink
	// Received gives the lines, or messages that end in them, that the receiver has.
	Received func() []string
	// Down makes the receiver refuse, Up take again.
	Down, Up func()
	// Set changes how a network receiver behaves; nil for others.
	Set func(Mode)
	// Fail makes an HTTP receiver answer with a status, and Retry-After seconds unless that is 0; nil for others.
	Fail func(status, after int)
	// Once says that nothing is doubled by a restart: the driver undoes it, or the receiver knows records by their keys.
	Once bool
}

// Run runs the suite; start makes a fresh Harness for each test.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	t.Run("AcknowledgedRecordsHaveArrived", func(t *testing.T) {
		h := start(t)
		s := open(t, h, "")
		for from := 0; from < 3000; from += 1000 {
			deliver(t, s, from, 1000)
		}
		expect(t, h, 3000, 0)
	})
	t.Run("RefusedRecordsAreNotAcknowledgedAndArriveLater", func(t *testing.T) {
		h := start(t)
		s := open(t, h, "")
		deliver(t, s, 0, 10)
		expect(t, h, 10, 0)
		h.Down()
		r, err := s.Deliver(t.Context(), records(10, 10), nil)
		if err == nil || r.Acked != 0 {
			t.Fatalf("a receiver that is down gave %+v, %v", r, err)
		}
		doubt := r.Unsure
		h.Up()
		r = deliver(t, s, 10, 10)
		expect(t, h, 20, doubt+r.Resent)
	})
	t.Run("ARestartUndoesOrRepeatsWhatNoSavedMarkCovers", func(t *testing.T) {
		h := start(t)
		s := open(t, h, "")
		mark := deliver(t, s, 0, 100).Mark
		deliver(t, s, 100, 100) // acknowledged, but the agent dies before that is saved
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, h, mark)
		deliver(t, s, 100, 100)
		allowed := 100
		if h.Once {
			allowed = 0
		}
		expect(t, h, 200, allowed)
	})
	t.Run("AServerErrorLosesAndDoublesNothing", func(t *testing.T) {
		h := start(t)
		if h.Fail == nil {
			t.Skip("no statuses")
		}
		s := open(t, h, "")
		for _, status := range []int{500, 502, 503, 504, 401, 404} {
			h.Fail(status, 0)
			if r, err := s.Deliver(t.Context(), records(0, 10), nil); err == nil || r.Acked+r.Unsure+len(r.Rejected) > 0 {
				t.Fatalf("an answer %d gave %+v, %v", status, r, err)
			}
		}
		h.Fail(0, 0)
		deliver(t, s, 0, 10)
		expect(t, h, 10, 0)
	})
	t.Run("AReceiverThatAsksForPatienceIsHeard", func(t *testing.T) {
		h := start(t)
		if h.Fail == nil {
			t.Skip("no statuses")
		}
		s := open(t, h, "")
		for _, status := range []int{429, 503} {
			h.Fail(status, 7)
			_, err := s.Deliver(t.Context(), records(0, 10), nil)
			var later *sink.Later
			if !errors.As(err, &later) || later.After != 7*time.Second {
				t.Errorf("%d with Retry-After 7 gave %v", status, err)
			}
		}
		h.Fail(0, 0)
		deliver(t, s, 0, 10)
		expect(t, h, 10, 0)
	})
	t.Run("ARecordThatIsRefusedForGoodDoesNotHoldTheOthers", func(t *testing.T) {
		h := start(t)
		if h.Fail == nil {
			t.Skip("no statuses")
		}
		s := open(t, h, "")
		some := records(0, 100)
		bad := map[int]bool{0: true, 37: true, 38: true, 99: true}
		for i := range bad {
			some[i].Line = []byte(Poison)
		}
		r, err := s.Deliver(t.Context(), some, nil)
		if err != nil || r.Acked != 100 || len(r.Rejected) != len(bad) {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, one := range r.Rejected {
			if !bad[one.Index] || one.Reason == "" {
				t.Errorf("rejected %+v", one)
			}
		}
		if n := len(h.Received()); n != 96 {
			t.Errorf("%d records arrived, want 96", n)
		}
	})
	t.Run("CloseMayBeCalledTwiceAndBeforeAnything", func(t *testing.T) {
		s := start(t).New()
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Run("AReceiverThatAcceptsAndClosesLosesNothing", func(t *testing.T) {
		h := start(t)
		if h.Set == nil {
			t.Skip("no connection")
		}
		s := open(t, h, "")
		deliver(t, s, 0, 50)
		expect(t, h, 50, 0)
		h.Down()
		h.Up()
		h.Set(Rude)
		// What a rude receiver's kernel took counts as acknowledged, for a while. The agent goes on to the next records.
		doubt, n := 0, 50
		for range 5 {
			r, err := s.Deliver(t.Context(), records(n, 20), nil)
			if err == nil && r.Acked != 20 {
				t.Fatalf("%d of 20 acknowledged without an error", r.Acked)
			}
			n, doubt = n+r.Acked, doubt+r.Unsure+r.Resent
		}
		h.Set(Reading)
		for tries := 0; n < 200 && tries < 100; tries++ {
			r, _ := s.Deliver(t.Context(), records(n, 10), nil)
			n, doubt = n+r.Acked, doubt+r.Unsure+r.Resent
		}
		// A reset that came after the last of them is mended without a further record, which only brings the account.
		last := func(l string) bool { return strings.HasSuffix(l, fmt.Sprintf("line %d", n-1)) }
		for end := time.Now().Add(20 * time.Second); !slices.ContainsFunc(h.Received(), last); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("line %d was acknowledged and never arrived", n-1)
			}
		}
		account := deliver(t, s, n, 1)
		n, doubt = n+1, doubt+account.Resent
		expect(t, h, n, doubt)
	})
	t.Run("ASlowReceiverIsWaitedForAndLeftWhenTheAgentStops", func(t *testing.T) {
		h := start(t)
		if h.Set == nil {
			t.Skip("no connection")
		}
		h.Set(Stuck)
		s := open(t, h, "")
		big := records(0, 20)
		for i := range big {
			big[i].Line = append(make([]byte, 0, 1<<20+20), strings.Repeat("x", 1<<20)+" line "+strconv.Itoa(i)...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if r, err := s.Deliver(ctx, big, nil); err == nil || r.Acked == len(big) {
			t.Fatalf("20 MiB were acknowledged by a receiver that reads nothing: %+v", r)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the reason is %v, want the context's", err)
		}
		h.Set(Reading)
		r, err := s.Deliver(t.Context(), big, nil)
		if err != nil || r.Acked != len(big) {
			t.Fatalf("%+v, %v", r, err)
		}
		expect(t, h, 20, 20)
	})
}

func open(t *testing.T, h Harness, mark string) sink.Sink {
	t.Helper()
	s := h.New()
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Resume(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	return s
}

// deliver repeats until all of n records are acknowledged and gives the last receipt, with Resent added up.
func deliver(t *testing.T, s sink.Sink, from, n int) sink.Receipt {
	t.Helper()
	resent := 0
	for tries := 0; ; tries++ {
		r, err := s.Deliver(t.Context(), records(from, n), nil)
		resent += r.Resent
		if err == nil && r.Acked == n {
			r.Resent = resent
			return r
		}
		if tries == 10 {
			t.Fatalf("records %d to %d: %+v, %v", from, from+n, r, err)
		}
		from, n = from+r.Acked, n-r.Acked
	}
}

var origin = &sink.Origin{Host: "web1", Runtime: "docker", ID: "c0ffee", Name: "shop", Labels: map[string]string{"tier": "front"}}

func records(from, n int) []sink.Record {
	out := make([]sink.Record, n)
	for i := range out {
		out[i] = sink.Record{Origin: origin, At: 1_795_000_000_123_456_789, Std: decode.Stdout, Line: fmt.Appendf(nil, "line %d", from+i), Key: sink.Key{File: 7, Off: int64(from + i)}}
	}
	return out
}

// expect waits until lines 0..n-1 are there and fails when one is doubled beyond what was owned up to.
func expect(t *testing.T, h Harness, n, doubled int) {
	t.Helper()
	var missing, twice int
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		seen := make([]int, n)
		for _, l := range h.Received() {
			k, err := strconv.Atoi(l[strings.LastIndexByte(l, ' ')+1:])
			if err != nil || k >= n {
				t.Fatalf("received %.200q, which nobody sent", l)
			}
			seen[k]++
		}
		missing, twice = 0, 0
		for _, times := range seen {
			if times == 0 {
				missing++
			} else {
				twice += times - 1
			}
		}
		if missing == 0 || time.Now().After(end) {
			break
		}
	}
	if missing > 0 || twice > doubled {
		t.Fatalf("%d of %d lines missing, %d doubled where %d may be", missing, n, twice, doubled)
	}
}
