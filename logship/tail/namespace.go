package tail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// ErrNotInside is returned for a process that lives among the host's own mounts: its files are not a container's.
var ErrNotInside = errors.New("the process has no mount namespace of its own")

// Namespace is the mount namespace of a container, held open. Its files can be read until Close, also after its last
// process has ended, when what lay on a tmpfs has no other name left.
//
// It is the namespace that is held and none of its mounts: an umount in the container, the runtime's umount of the root
// and the removal of what was mounted go on as if nobody looked (measured with runc: an open file or directory on the
// tmpfs makes the container's own umount fail with EBUSY, O_PATH or not; the namespace does not). A mount is in use only
// while Root's directory, or a file below it, is open.
type Namespace struct {
	file *os.File
	pid  *os.File   // a pidfd
	host []Identity // the host's root and ours, which no container has
}

// OpenNamespace holds the namespace that the process is in now. same tells whether it is still the process that is meant:
// its number may have been given to another.
func OpenNamespace(proc string, pid int, same func() bool) (*Namespace, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that Wait costs no thread
		return nil, errors.Join(fmt.Errorf("hold process %d: %w", pid, err), unix.Close(fd))
	}
	n := &Namespace{pid: os.NewFile(uintptr(fd), "pidfd")}
	if n.file, err = os.Open(filepath.Join(proc, strconv.Itoa(pid), "ns/mnt")); err != nil {
		return nil, errors.Join(fmt.Errorf("hold mounts of %d: %w", pid, err), n.pid.Close())
	}
	for _, own := range []string{"self", "1"} { // of the first process perhaps nothing may be seen: then it is not ours either
		if sameFile(n.file, filepath.Join(proc, own, "ns/mnt")) {
			return nil, errors.Join(fmt.Errorf("hold mounts of %d: %w", pid, ErrNotInside), n.Close())
		}
		if id, err := identityAt(filepath.Join(proc, own, "root")); err == nil {
			n.host = append(n.host, id)
		}
	}
	if !same() || unix.PidfdSendSignal(fd, 0, nil, 0) != nil { // asked last: it lived when its namespace was opened
		return nil, errors.Join(fmt.Errorf("hold mounts of %d: %w", pid, os.ErrProcessDone), n.Close())
	}
	return n, nil
}

func identityAt(path string) (Identity, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Identity{}, err
	}
	defer unix.Close(fd)
	return identify(fd)
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	b, e := os.Stat(path)
	return err == nil && e == nil && os.SameFile(a, b)
}

// Wait blocks until the process has ended or Close is called.
func (n *Namespace) Wait() {
	raw, err := n.pid.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { // again whenever the descriptor becomes readable: at the end of the process
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		got, err := unix.Poll(p, 0)
		return err == nil && got > 0
	})
}

// Root opens the root that the namespace's processes have. What is done with it should be done soon: see Namespace.
func (n *Namespace) Root() (r Root, done func(), err error) {
	var fd int
	err = host.OnThread(func() error {
		// A thread that shares its root directory with others may not enter another mount namespace (setns(2)).
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mounts of a container: %w", err)
		}
		var err error
		fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("reach a container's root: %w", err)
	}
	if id, err := identify(fd); err != nil || slices.Contains(n.host, id) { // its runtime has not changed the root yet
		return "", nil, errors.Join(fmt.Errorf("reach a container's root: %w", ErrNotInside), unix.Close(fd))
	}
	return Root(fmt.Sprintf("/proc/self/fd/%d", fd)), func() { _ = unix.Close(fd) }, nil
}

// Close lets go of the namespace. It may be called twice.
func (n *Namespace) Close() error {
	_, _ = n.pid.Close(), n.file.Close()
	return nil
}

// Glance is what one look at a path tells without opening the file.
type Glance struct {
	Identity
	Size    int64
	Changed int64  // nanoseconds since 1970
	Mount   uint64 // 0 where the kernel does not tell (before 5.8)
}

// Glance looks at the regular file at path, or with "/" at the root itself.
func (r Root) Glance(path string) (Glance, error) {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return Glance{}, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return Glance{}, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG && path != "/" {
		return Glance{}, fmt.Errorf("look at %s: %w", path, ErrNotRegular)
	}
	id, err := identify(fd)
	return Glance{id, int64(st.Size), st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec), st.Mnt_id}, err
}

// Extent gives where the next bytes from off on begin that are no hole, and where those end: a sparse file costs what is
// in it. Both are off when there are none; a hole at the end may still be written to.
func (g *Generation) Extent(off int64) (from, end int64) {
	fd := int(g.content().Fd())
	from, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return off, off
	}
	if err == nil {
		end, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	}
	if err != nil { // the file system does not tell
		size, _, _ := g.Stat()
		return off, max(off, size)
	}
	return max(off, from), max(off, end)
}

// ProofOf is the proof for a place, from the first 256 bytes before it and the last 64.
func ProofOf(head, tail []byte) Proof { return Proof{hash(head), hash(tail)} }
