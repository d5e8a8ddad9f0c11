package syslog

import (
	"strings"
	"testing"
)

func TestTheWindowKeepsWhatThePeerCanHoldUnread(t *testing.T) {
	t.Parallel()
	message := []byte(strings.Repeat("x", 1000))
	for _, test := range []struct{ room, least, most int }{
		{0, minWindow, 2 * minWindow},
		{3 << 20, 6 << 20, 7 << 20},
		{64 << 20, maxWindow, maxWindow + minWindow},
	} {
		var w window
		for range 20 << 10 {
			w.add(message, []int{len(message)}, test.room)
		}
		if n := len(w.bytes()); n < test.least || n > test.most || n != 1000*w.records() || w.ends[len(w.ends)-1] != n {
			t.Errorf("a room of %d: %d bytes in %d messages", test.room, n, w.records())
		}
	}
}

func TestTheTailHasOnlyWhatWasSentOnce(t *testing.T) {
	t.Parallel()
	var w window
	for _, m := range []string{"a", "bb", "ccc", "dddd"} {
		w.add([]byte(m), []int{len(m)}, 0)
	}
	if w.tail(5); string(w.bytes()) != "cccdddd" {
		t.Errorf("kept %q", w.bytes())
	}
	w.again = w.records()
	w.add([]byte("eee"), []int{3}, 0)
	if w.tail(9); string(w.bytes()) != "eee" || w.records() != 1 || w.again != 0 {
		t.Errorf("kept %q", w.bytes())
	}
	w.again = 1
	if w.tail(9); w.records() != 0 {
		t.Errorf("kept %q", w.bytes())
	}
}
