// Package line is the wire between a story on the host and a test machine: commands go in, output and exit codes come
// out, as JSON lines over a virtio serial port. It needs no network, no ssh and no clock in the machine.
//
// A hard reset cuts the wire anywhere, also inside a line. So every line begins with an empty one, what does not parse is
// dropped, and the machine's greeting ends all commands of the boot before.
package line

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Port is the virtio serial port's name, in QEMU and in the machine.
const Port = "fairlead"

// ErrLost is the end of a command whose machine was reset, or whose guest program died, before it ended.
var ErrLost = errors.New("the machine lost the command")

// message is one line, in either direction.
type message struct {
	ID    int      `json:"id,omitempty"`
	Argv  []string `json:"argv,omitempty"`  // to the machine: run this
	Stdin []byte   `json:"stdin,omitempty"` // with this
	Kill  bool     `json:"kill,omitempty"`  // to the machine: end it, it takes too long

	Boot   string `json:"boot,omitempty"` // from the machine: the greeting, with the kernel's boot id
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   *int   `json:"exit,omitempty"`  // it ended; 128 and the signal when by one
	Error  string `json:"error,omitempty"` // it could not be started
}

// writer puts whole messages on the wire, from any goroutine.
type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.w.Write(append(append([]byte{'\n'}, b...), '\n')); err != nil {
		return fmt.Errorf("write to the other end: %w", err)
	}
	return nil
}

// each calls f with every message until the wire ends.
func each(r io.Reader, f func(message)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		b, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read from the other end: %w", err)
		}
		var m message
		if len(b) > 1 && json.Unmarshal(b, &m) == nil {
			f(m)
		}
	}
}
