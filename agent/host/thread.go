package host

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread calls f on a thread of its own, which is never used again because f changes its namespace, and gives f's
// error. It is never the first thread of the process: that one does not end, and /proc/PID/ns/net would go on speaking
// of the wrong namespace. It blocks as long as f. Goroutines that f starts are elsewhere; child processes that it
// starts are where f is.
func OnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f() // not unlocked: the thread ends with the goroutine
			return
		}
		err := OnThread(f) // on another one, as this one is held
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
