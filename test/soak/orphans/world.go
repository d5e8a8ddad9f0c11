package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/agent/reap/detect"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/daemons"
)

// grace is that of the real rounds: long enough for two lists, short enough for a test.
const grace = 300 * time.Millisecond

// world is a host of its own: a containerd, the agent's inventory, overlay and reaper, and containers that each have a
// named network namespace with an address, as Kubernetes' pods do.
type world struct {
	dir        string
	containerd *daemons.ContainerdDaemon
	log        *slog.Logger
	logFile    *os.File
	prefix     string // of all names: other tests run on this machine
	serial     int
	known      map[string]*box // all that this world has made and not cleared

	inventory *container.Inventory
	overlay   *overlay.Overlay
	reaper    *reap.Reaper
	stop      func() error
}

// box is one container of this world.
type box struct {
	id    string
	pid   int
	addr  string
	alive bool // its process is
	gone  bool // nobody wants it any more
}

func (b *box) netns() string { return "/run/netns/" + b.id }
func (b *box) key() plan.Key { return plan.Key{Owner: "default-" + b.id, IfName: "eth0"} }

// newWorld must be called in a process that apart has made.
func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{prefix: fmt.Sprintf("flo%d-", os.Getpid()), known: map[string]*box{}, stop: func() error { return nil }}
	if w.dir, err = os.MkdirTemp("/tmp", "fairlead-orphans-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	run := filepath.Join(w.dir, "run")
	if err := errors.Join(os.MkdirAll(filepath.Join(run, "netns"), 0o755), unix.Mount(run, "/run", "", unix.MS_BIND, "")); err != nil {
		return nil, fmt.Errorf("cover /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	own, err := netlink.ParseAddr("192.0.2.1/32") // from which the host speaks to its containers
	if err = errors.Join(err, netlink.LinkSetUp(lo), netlink.AddrReplace(lo, own)); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	if w.logFile, err = os.Create(filepath.Join(w.dir, "agent.log")); err != nil {
		return nil, err
	}
	w.log = slog.New(slog.NewTextHandler(w.logFile, nil))
	daemonDir := filepath.Join(w.dir, "d")
	if err := os.Mkdir(daemonDir, 0o755); err != nil {
		return nil, err
	}
	if w.containerd, err = daemons.Containerd(ctx, daemons.Options{
		Dir: daemonDir, Prefix: []string{"env"}, State: "/run/containerd", Address: "/run/containerd/containerd.sock",
	}); err != nil {
		return nil, err
	}
	image, err := daemons.BusyboxImage(w.dir)
	if err == nil {
		_, err = w.containerd.Ctr(ctx, "default", "image", "import", image)
	}
	if err != nil {
		return nil, err
	}
	return w, w.startAgent(ctx)
}

// startAgent runs the agent's parts from what their state directories say.
func (w *world) startAgent(ctx context.Context) error {
	dir, err := state.Open(filepath.Join(w.dir, "state"), w.log)
	if err != nil {
		return err
	}
	root, stats := host.DefaultRoot(), &stat.Registry{}
	if w.inventory, err = container.New(container.DefaultConfig(), container.Deps{Host: root, Log: w.log, Stat: stats}); err != nil {
		return err
	}
	overlayState, err1 := dir.Sub("overlay")
	reapState, err2 := dir.Sub("orphans")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if w.overlay, err = overlay.New(overlay.DefaultConfig(), overlay.Deps{
		Log: w.log, Stats: stats, State: overlayState, Root: root, Board: w.inventory.Board(), NodeName: "soak",
	}); err != nil {
		return err
	}
	h := detect.DefaultHost(root, "/run", w.containerd.Root)
	h.Leases = []string{filepath.Join(w.dir, "leases")} // the machine's are not this world's to clear
	h.OurGroups = []uint32{plan.Group, plan.RetiredGroup, plan.TunnelGroup}
	owners := detect.Owners(h)
	owners["overlay"] = w.overlay
	cfg := reap.DefaultConfig()
	cfg.Grace = grace
	if w.reaper, err = reap.New(cfg, reap.Deps{Log: w.log, Stats: stats, State: reapState, Root: root, Inventory: w.inventory, Owners: owners}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- w.inventory.Run(ctx) }()
	go func() { ended <- w.overlay.Run(ctx) }()
	w.stop = func() error {
		cancel()
		w.stop = func() error { return nil }
		return errors.Join(<-ended, <-ended)
	}
	return w.overlay.Ready(ctx)
}

// start makes a container as a pod is made: namespace, address, process.
func (w *world) start(ctx context.Context, labels ...string) (*box, error) {
	w.serial++
	b := &box{id: fmt.Sprintf("%s%d", w.prefix, w.serial), alive: true}
	w.known[b.id] = b
	if err := holdNetNS(b.netns()); err != nil {
		return nil, err
	}
	f, err := os.Open(b.netns())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := w.overlay.Attach(ctx, overlay.Request{Key: b.key(), Network: "fairlead", NS: plan.Namespace{FD: int(f.Fd()), Path: b.netns()}})
	if err != nil {
		return nil, err
	}
	b.addr = a.Addr.String()
	args := []string{"run", "-d", "--with-ns", "network:" + b.netns()}
	for _, l := range labels {
		args = append(args, "--label", l)
	}
	if _, err := w.containerd.Ctr(ctx, "default", append(args, daemons.BusyboxName, b.id, "sleep", "86400")...); err != nil {
		return nil, err
	}
	return b, w.await(ctx, b.id+" runs", func(s *container.Snapshot) bool {
		c := w.find(s, b)
		if c != nil && c.State == container.Running && c.PID != 0 {
			b.pid = c.PID
		}
		return b.pid != 0
	})
}

func (w *world) find(s *container.Snapshot, b *box) *container.Container {
	c, _ := s.Get("containerd", container.ID(b.id))
	return c
}

func (w *world) await(ctx context.Context, what string, ok func(*container.Snapshot) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for s := range w.inventory.Follow(ctx) {
		if ok(s) {
			return nil
		}
	}
	s := w.inventory.Snapshot()
	return fmt.Errorf("wait until %s: %w (runtimes %+v)", what, ctx.Err(), s.Runtimes)
}

func (w *world) answers(ctx context.Context, want bool) error {
	return w.await(ctx, fmt.Sprintf("containerd answers: %v", want), func(s *container.Snapshot) bool {
		return len(s.Runtimes) > 0 && s.Answered("containerd") == want
	})
}

// shimOf gives the shim of a container of this world.
func (w *world) shimOf(b *box) (int, error) {
	root := host.DefaultRoot()
	all, err := root.Processes()
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		args := root.Args(p.PID)
		if strings.HasPrefix(p.Comm, "containerd-shim") && slices.Contains(args, b.id) && slices.Contains(args, w.containerd.Address) {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("%s has no shim", b.id)
}

func (w *world) killShim(b *box) error {
	pid, err := w.shimOf(b)
	if err != nil {
		return err
	}
	return w.kill(pid)
}

func (w *world) killInit(b *box) error {
	b.alive = false
	return w.kill(b.pid)
}

// kill ends a process that is not our child and waits until it is gone.
func (w *world) kill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	for range 500 {
		if _, alive := host.DefaultRoot().Process(pid); !alive {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // nobody tells us of the end of somebody else's child
	}
	return fmt.Errorf("process %d does not end", pid)
}

// forget lets containerd remove its record, as a person, or the kubelet, would.
func (w *world) forget(ctx context.Context, b *box) error {
	b.gone = true
	_, err := w.containerd.Ctr(ctx, "default", "container", "rm", b.id)
	return err
}

// settled observes until the grace is over and gives the last verdicts about this world's containers.
func (w *world) settled(ctx context.Context) ([]reap.Verdict, error) {
	var f reap.Found
	for range 3 {
		var err error
		if f, err = w.reaper.Orphans(ctx); err != nil {
			return nil, err
		}
		select {
		case <-time.After(grace):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return w.ours(f.Verdicts), nil
}

// ours leaves out what is not of this world: the machine's cgroups and processes are everybody's.
func (w *world) ours(all []reap.Verdict) []reap.Verdict {
	var out []reap.Verdict
	for _, v := range all {
		if strings.Contains(v.Resource.ID, w.prefix) {
			out = append(out, v)
		}
	}
	return out
}

func (w *world) boxOf(v reap.Verdict) *box {
	for id, b := range w.known {
		if rest, ok := strings.CutPrefix(v.Resource.ID[strings.Index(v.Resource.ID, w.prefix):], id); ok && (rest == "" || rest[0] == '/') {
			return b
		}
	}
	return nil
}

func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, b := range w.known {
		if _, alive := host.DefaultRoot().Process(b.pid); b.alive && alive && b.pid != 0 {
			errs = append(errs, w.kill(b.pid))
		}
	}
	errs = append(errs, w.stop())
	if w.containerd != nil {
		errs = append(errs, w.containerd.Stop(ctx))
	}
	if w.logFile != nil {
		errs = append(errs, w.logFile.Close())
	}
	left, err := filepath.Glob("/run/netns/" + w.prefix + "*")
	for _, path := range left {
		errs = append(errs, unix.Unmount(path, 0))
	}
	cgroups, err2 := filepath.Glob("/sys/fs/cgroup/*/default/" + w.prefix + "*")
	for _, path := range cgroups {
		errs = append(errs, os.Remove(path))
	}
	errs = append(errs, err, err2, unix.Unmount("/run", 0), os.RemoveAll(w.dir))
	return errors.Join(errs...)
}
