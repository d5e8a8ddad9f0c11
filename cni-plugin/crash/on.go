//go:build crash

package crash

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Numbered tells whether this is a test build.
const Numbered = true

var (
	mu      sync.Mutex
	command string
	passed  int
	at      = os.Getenv("FAIRLEAD_CRASH_AT")
	log     = os.Getenv("FAIRLEAD_CRASH_LOG")
)

// Begin starts to count anew: a call has come.
func Begin(c string) {
	mu.Lock()
	command, passed = c, 0
	mu.Unlock()
	Point("called")
}

// Step is one place behind a step that was done.
func Step(s any) { Point(fmt.Sprintf("%T", s)) }

// Point is one place.
func Point(name string) {
	mu.Lock()
	defer mu.Unlock()
	if command == "" {
		return // not in a call
	}
	passed++
	if log != "" {
		if f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintf(f, "%s:%d %s\n", command, passed, name)
			_ = f.Close() // a test's log
		}
	}
	if at == fmt.Sprintf("%s:%d", command, passed) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
