package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/daemons"
)

const (
	image     = daemons.BusyboxName
	namespace = "default"
)

// world is a containerd with containers in it, and the processes that are scraped.
type world struct {
	dir        string
	containerd *daemons.ContainerdDaemon
	ids        []string
	busy       int
	servers    []*server
	cgroups    []string // made for growth
}

func newWorld(ctx context.Context) (*world, error) {
	dir, err := os.MkdirTemp("/tmp", "flbench-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	if w.containerd, err = daemons.Containerd(ctx, daemons.Options{Dir: dir}); err == nil {
		var path string
		if path, err = daemons.BusyboxImage(dir); err == nil {
			_, err = w.containerd.Ctr(ctx, namespace, "image", "import", path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// containers starts n containers with a network interface each. Every tenth is busy, up to 20, each with a hundredth of
// a processor; the others sleep, as most do.
func (w *world) containers(ctx context.Context, n int) error {
	const atOnce = 3
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
		next  = make(chan int)
	)
	for i := range n {
		w.ids = append(w.ids, fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s/%d", w.dir, i))))
	}
	w.busy = min(20, n/10)
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				if err := w.run(ctx, i); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if first != nil {
		return first
	}
	return w.interfaces(ctx)
}

func (w *world) run(ctx context.Context, i int) error {
	args := []string{"run", "-d", "--label", "io.cri-containerd.kind=sandbox", // else cAdvisor does not read its network
		"--memory-limit", strconv.Itoa(64 << 20), "--cpu-period", "100000", "--cpu-quota"}
	if i < w.busy {
		args = append(args, "1000", image, w.ids[i], "/bin/sh", "-c", "while :; do :; done")
	} else {
		args = append(args, "50000", image, w.ids[i])
	}
	_, err := w.containerd.Ctr(ctx, namespace, args...)
	return err
}

// interfaces gives each container an eth0 whose other end is on the host.
func (w *world) interfaces(ctx context.Context) error {
	pids, err := w.pids(ctx)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: hostEnd(pid), Flags: unix.IFF_UP}, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid),
		}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("add a link to the container of %d: %w", pid, err)
		}
	}
	return nil
}

func hostEnd(pid int) string { return fmt.Sprintf("flb%d", pid) }

// pids gives the first process of each container, by the container's id.
func (w *world) pids(ctx context.Context) (map[string]int, error) {
	tasks, err := w.containerd.Ctr(ctx, namespace, "task", "ls")
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for line := range strings.Lines(tasks) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if pid, err := strconv.Atoi(f[1]); err == nil && pid > 0 { // else it is the heading
			out[f[0]] = pid
		}
	}
	if len(out) != len(w.ids) {
		return nil, fmt.Errorf("%d of %d containers run:\n%s", len(out), len(w.ids), tasks)
	}
	return out, nil
}

func (w *world) close() error {
	// What was started under a context that ended must still be taken back.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	for _, s := range w.servers {
		err = errors.Join(err, s.stop())
	}
	if w.containerd != nil {
		err = errors.Join(err, w.removeTasks(ctx), w.containerd.Stop(ctx))
	}
	for _, dir := range w.cgroups {
		if e := os.Remove(dir); e != nil && !os.IsNotExist(e) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// removeTasks removes the containers a few at a time: all at once take longer than the daemon's own patience.
func (w *world) removeTasks(ctx context.Context) error {
	for at := 0; at < len(w.ids); at += 25 {
		ids := w.ids[at:min(at+25, len(w.ids))]
		if _, err := w.containerd.Ctr(ctx, namespace, append([]string{"tasks", "rm", "--force"}, ids...)...); err != nil {
			fmt.Fprintln(os.Stderr, err) // Stop looks at what is really left
		}
	}
	return nil
}

func growthName(pid int) string { return "fairlead-bench-" + strconv.Itoa(pid) }

// makeCgroups makes n cgroups in each hierarchy.
func (w *world) makeCgroups(n int) error {
	h, err := host.DefaultRoot().Cgroups()
	if err != nil {
		return err
	}
	mounts := []string{}
	for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "hugetlb"} {
		if at, ok := h.V1[controller]; ok {
			mounts = append(mounts, at)
		}
	}
	if h.Unified != "" {
		mounts = append(mounts, h.Unified)
	}
	for _, at := range mounts {
		top := filepath.Join(at, growthName(os.Getpid()))
		for i := -1; i < n; i++ {
			dir := top
			if i >= 0 {
				dir = filepath.Join(top, strconv.Itoa(i))
			}
			switch err := os.Mkdir(dir, 0o755); {
			case err == nil:
				w.cgroups = append([]string{dir}, w.cgroups...) // children go first
			case !os.IsExist(err): // two controllers of one mount
				return err
			}
		}
		if h.Unified != at {
			continue
		}
		offered, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
		if err != nil {
			return err
		}
		if control := strings.Join(strings.Fields(string(offered)), " +"); control != "" {
			control = "+" + control
			if err := os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte(control), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func nofile() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	limit.Cur = limit.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // up to the hard limit is always allowed
	return int(limit.Max)
}

var dieWithParent = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
