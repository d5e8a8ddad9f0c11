package machine

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
)

func TestAFrameReachesAllOthersAndNotItsSender(t *testing.T) {
	t.Parallel()
	s, err := NewSwitch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var machines []net.Conn
	for range 3 {
		c, err := net.Dial("unix", s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		machines = append(machines, c)
	}
	frame := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	// A connection takes part as soon as it is accepted; nobody tells when, so each says something until all have heard.
	for heard := 0; heard < 3; {
		s.mu.Lock()
		heard = len(s.ports)
		s.mu.Unlock()
	}
	for _, text := range []string{"one", "", "a longer frame"} {
		if _, err := machines[0].Write(frame(text)); err != nil {
			t.Fatal(err)
		}
		for _, c := range machines[1:] {
			if got, err := read(c); err != nil || !bytes.Equal(got, frame(text)) {
				t.Errorf("got %q, %v; want %q", got, err, frame(text))
			}
		}
	}
	// The first thing the sender hears is what another one says.
	if _, err := machines[1].Write(frame("answer")); err != nil {
		t.Fatal(err)
	}
	if got, err := read(machines[0]); err != nil || !bytes.Equal(got, frame("answer")) {
		t.Errorf("the sender got %q, %v; want the answer alone", got, err)
	}
}
