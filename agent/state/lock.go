package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned for a state directory that another agent works in.
var ErrLocked = errors.New("state directory is in use")

// Lock claims the state directory path, made when it is missing, for this process: two agents in one would undo each
// other's work and ship each line twice. It fails with ErrLocked, and the other's pid, when it is taken. The claim ends
// with release or with the process, however that ends (flock(2)).
func Lock(path string) (release func() error, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		owner, _ := os.ReadFile(f.Name()) // for the message only
		return nil, errors.Join(fmt.Errorf("%w: %s belongs to the agent with pid %s; stop it, or give this one another state_dir", ErrLocked, path, bytes.TrimSpace(owner)), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", errors.Join(err, f.Close()))
	}
	return f.Close, nil
}
