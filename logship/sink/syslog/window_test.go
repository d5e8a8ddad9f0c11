package syslog

import (
	"fmt"
	"strings"
	"testing"
)

// text is what the window has, and checks its books.
func (w *window) text(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	count := 0
	for _, p := range w.pieces {
		b.Write(p.bytes)
		count += len(p.ends)
		if len(p.ends) == 0 || p.ends[len(p.ends)-1] != len(p.bytes) {
			t.Errorf("a piece of %d bytes ends at %v", len(p.bytes), p.ends)
		}
	}
	if b.Len() != w.size || count != w.count {
		t.Errorf("%d bytes in %d messages, by its books %d in %d", b.Len(), count, w.size, w.count)
	}
	return b.String()
}

func TestTheWindowKeepsWhatThePeerCanHoldUnread(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ room, least, most int }{
		{0, minWindow, minWindow + 2*pieceSize},
		{3 << 20, 3 << 20, 3<<20 + 2*pieceSize},
		{64 << 20, maxWindow, maxWindow + 2*pieceSize},
	} {
		var w window
		var all strings.Builder
		for i := range 20_000 {
			message := fmt.Sprintf("%01000d", i)
			all.WriteString(message)
			w.add([]byte(message), []int{1000}, test.room)
		}
		got := w.text(t)
		if len(got) < test.least || len(got) > test.most || !strings.HasSuffix(all.String(), got) {
			t.Errorf("a room of %d: %d bytes in %d messages", test.room, len(got), w.count)
		}
	}
}

func TestTheTailHasOnlyWhatWasSentOnce(t *testing.T) {
	t.Parallel()
	var w window
	for _, m := range []string{"a", "bb", "ccc", "dddd"} {
		w.add([]byte(m), []int{len(m)}, 0)
	}
	if w.tail(5); w.text(t) != "cccdddd" {
		t.Errorf("kept %q", w.text(t))
	}
	w.again = w.count
	w.add([]byte("eee"), []int{3}, 0)
	if w.tail(9); w.text(t) != "eee" || w.count != 1 || w.again != 0 {
		t.Errorf("kept %q", w.text(t))
	}
	w.again = 1
	if w.tail(9); w.text(t) != "" || w.count != 0 {
		t.Errorf("kept %q", w.text(t))
	}
	for i := range 300 { // several pieces
		w.add(make([]byte, 1000), []int{400, 1000}, 0)
		w.again = min(i, 50)
	}
	if w.tail(2000); w.count != 4 || w.size != 2000 {
		t.Errorf("%d messages of %d bytes", w.count, w.size)
	}
}
