package detect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// namespaces finds the files that hold network namespaces: what `ip netns`, CNI runtimes, Podman and Docker mount.
type namespaces struct{ Host }

const nsfsMagic = 0x6e736673 // statfs(2)

func (n namespaces) dirs() []string {
	return []string{filepath.Join(n.Run, "netns"), filepath.Join(n.Run, "docker/netns")}
}

// Owned implements reap.Owner.
func (n namespaces) Owned(context.Context) ([]reap.Resource, error) {
	all, err := n.Processes()
	if err != nil {
		return nil, err
	}
	inside := n.inside(all)
	own, err := host.StatNetNS("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	var out []reap.Resource
	for _, path := range n.files() {
		r, ns, err := n.resource(path)
		if err != nil {
			return nil, err
		}
		if ns == own || r.ID == "" {
			continue // Docker keeps a file of the host's own
		}
		r.PIDs = inside[ns]
		out = append(out, r)
	}
	n.hold(out, all)
	return out, nil
}

func (n namespaces) files() (out []string) {
	for _, dir := range n.dirs() {
		entries, _ := os.ReadDir(dir) // without it there are none
		for _, e := range entries {
			if !e.IsDir() {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out
}

// inside gives the processes in each network namespace.
func (n namespaces) inside(all []host.Process) map[host.NetNS][]int {
	out := map[host.NetNS][]int{}
	for _, p := range all {
		if ns, err := n.NetNS(p.PID); err == nil {
			out[ns] = append(out[ns], p.PID)
		}
	}
	return out
}

func (n namespaces) resource(path string) (reap.Resource, host.NetNS, error) {
	inst, st, ok := instance(path)
	if !ok {
		return reap.Resource{}, host.NetNS{}, nil // gone meanwhile
	}
	r := reap.Resource{Kind: reap.NetNS, ID: path}
	if !isNamespace(path) {
		r.Instance, r.Since = inst, st.ModTime()
		r.Evidence = []string{"a file that holds no namespace any more"}
		return r, host.NetNS{}, nil
	}
	ns, err := host.StatNetNS(path)
	if err == nil {
		r.Instance, err = cookie(path)
	}
	if err != nil {
		return r, ns, err
	}
	r.Claim.NetNS = ns
	r.Evidence = []string{fmt.Sprintf("mounted there: %s", ns)}
	return r, ns, nil
}

func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// hold puts in who else uses a namespace in which no process stands: a thread, or an open descriptor.
func (n namespaces) hold(have []reap.Resource, all []host.Process) {
	empty, bases := map[host.NetNS][]int{}, map[string]bool{}
	for _, r := range have {
		if len(r.PIDs) == 0 && !r.Claim.NetNS.IsZero() {
			empty[r.Claim.NetNS] = nil
			bases[filepath.Base(r.ID)] = true
		}
	}
	if len(empty) == 0 {
		return
	}
	for _, p := range all {
		for ns := range n.reached(p.PID, bases) {
			if _, ok := empty[ns]; ok {
				empty[ns] = append(empty[ns], p.PID)
			}
		}
	}
	for i := range have {
		r := &have[i]
		if len(r.PIDs) > 0 || r.Claim.NetNS.IsZero() {
			continue
		}
		if r.PIDs = empty[r.Claim.NetNS]; len(r.PIDs) > 0 {
			r.Evidence = append(r.Evidence, fmt.Sprintf("a thread or an open file of process %v holds it", r.PIDs))
		} else {
			r.Evidence = append(r.Evidence, "no process, no thread and no open file has it")
		}
	}
}

// reached gives the namespaces that a process's threads stand in or its descriptors hold. Of the descriptors only those
// are looked at that may be of a namespace, by /proc or by a file called as one of bases: to look at any may hang on a
// network file system.
func (n namespaces) reached(pid int, bases map[string]bool) map[host.NetNS]bool {
	out := map[host.NetNS]bool{}
	at := filepath.Join(n.Proc, strconv.Itoa(pid))
	tasks, _ := os.ReadDir(filepath.Join(at, "task")) // it may have ended
	for _, t := range tasks {
		if ns, err := host.StatNetNS(filepath.Join(at, "task", t.Name(), "ns/net")); err == nil {
			out[ns] = true
		}
	}
	fds, _ := os.ReadDir(filepath.Join(at, "fd"))
	for _, f := range fds {
		path := filepath.Join(at, "fd", f.Name())
		if to, err := os.Readlink(path); err == nil && (strings.HasPrefix(to, "net:[") || bases[filepath.Base(to)]) {
			if ns, err := host.StatNetNS(path); err == nil {
				out[ns] = true
			}
		}
	}
	return out
}

// cookie gives the number of a network namespace that no other ever has (SO_NETNS_COOKIE, Linux 5.14); before that, its
// inode, which the next one may get.
func cookie(path string) (string, error) {
	var text string
	err := host.OnThread(func() (err error) {
		text, err = cookieHere(path)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("ask for the cookie of %s: %w", path, err)
	}
	return text, nil
}

func cookieHere(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return "", err
	}
	defer own.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return "", err
	}
	// Back before anybody looks at who stands where: a thread ends some time after its goroutine.
	defer func() { _ = unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) }()
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(s)
	n, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		ns, err := host.StatNetNS("/proc/thread-self/ns/net")
		return ns.String(), err
	}
	return fmt.Sprintf("cookie %d", n), err
}

// Release implements reap.Owner: it takes the mount and the file away. The namespace ends when nothing else holds it,
// and with it every link into it.
func (n namespaces) Release(_ context.Context, r reap.Resource) error {
	now, ns, err := n.resource(r.ID)
	if err != nil {
		return err
	}
	if now.ID == "" {
		return nil
	}
	if !ns.IsZero() {
		if now.Instance != r.Instance {
			return fmt.Errorf("%s holds another namespace by now", r.ID)
		}
		if err := n.unused(now); err != nil {
			return err
		}
		if err := unix.Unmount(r.ID, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", r.ID, err)
		}
	}
	if st, err := os.Lstat(r.ID); err == nil && (!st.Mode().IsRegular() || st.Size() > 0) {
		return fmt.Errorf("%s is not an empty file", r.ID)
	}
	if err := os.Remove(r.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove namespace file: %w", err)
	}
	return nil
}

func (n namespaces) unused(r reap.Resource) error {
	all, err := n.Processes()
	if err != nil {
		return err
	}
	r.PIDs = n.inside(all)[r.Claim.NetNS]
	have := []reap.Resource{r}
	n.hold(have, all)
	if pids := have[0].PIDs; len(pids) > 0 {
		return fmt.Errorf("%s is used by processes %v", r.ID, pids)
	}
	return nil
}
