package line

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Serve is the machine's end: it greets with the boot id, runs what the story asks for, many at once if it asks so, and
// gives why the wire ended.
func Serve(rw io.ReadWriter, boot string) error {
	s := &server{w: writer{w: rw}, pids: map[int]int{}}
	if err := s.w.send(message{Boot: boot}); err != nil {
		return err
	}
	return each(rw, func(m message) {
		switch {
		case m.Kill:
			s.kill(m.ID)
		case len(m.Argv) > 0:
			go s.run(m)
		}
	})
}

type server struct {
	w    writer
	mu   sync.Mutex
	pids map[int]int // process group of each command that runs
}

func (s *server) kill(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid := s.pids[id]; pid > 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended
	}
}

// run answers in every case: output while it comes, then how it ended. What cannot be sent any more has nobody to read it.
func (s *server) run(m message) {
	cmd := exec.Command(m.Argv[0], m.Argv[1:]...)
	cmd.Stdin = bytes.NewReader(m.Stdin)
	cmd.Stdout = output(func(b []byte) error { return s.w.send(message{ID: m.ID, Stdout: b}) })
	cmd.Stderr = output(func(b []byte) error { return s.w.send(message{ID: m.ID, Stderr: b}) })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second // a daemon that the command leaves behind may keep the pipes
	s.mu.Lock()
	err := cmd.Start()
	if err == nil {
		s.pids[m.ID] = cmd.Process.Pid
	}
	s.mu.Unlock()
	if err != nil {
		_ = s.w.send(message{ID: m.ID, Error: err.Error()})
		return
	}
	err = cmd.Wait()
	s.mu.Lock()
	delete(s.pids, m.ID)
	s.mu.Unlock()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		_ = s.w.send(message{ID: m.ID, Error: err.Error()})
		return
	}
	code := cmd.ProcessState.ExitCode()
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		code = 128 + int(w.Signal())
	}
	_ = s.w.send(message{ID: m.ID, Exit: &code})
}

type output func([]byte) error

func (f output) Write(b []byte) (int, error) { return len(b), f(b) }
