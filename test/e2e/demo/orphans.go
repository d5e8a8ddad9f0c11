package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/test/daemons"
)

// grace is the first host's orphans.grace: short enough for a demo.
const grace = time.Second

// patience bounds every wait for the agent, containerd and the kernel.
const patience = 30 * time.Second

// orphans lets three containers alike meet three fates while containerd is down, and looks at what the reaper says and
// does: nothing as long as containerd is silent, then exactly what the dead have left.
func (d *Demo) orphans(ctx context.Context) (string, error) {
	n, peer := d.nodes[0], d.nodes[1].containers[0]
	// These hang on a `ctr run` in the foreground, which calls CNI DEL when containerd dies under it.
	var ids []string
	for _, c := range n.containers {
		if err := c.stop(ctx); err != nil {
			return "", err
		}
		ids = append(ids, c.ID)
	}
	n.containers = nil
	var boxes []*box
	for _, name := range []string{"first", "second", "third"} {
		b, err := n.box(ctx, name)
		if err != nil {
			return "", err
		}
		boxes = append(boxes, b)
	}
	first, second, third := boxes[0], boxes[1], boxes[2]
	if err := n.verdicts(ctx, "all three to be known and owned", boxes, func(f reap.Found) bool {
		return len(f.Unanswered) == 0 && !slices.ContainsFunc(boxes, func(b *box) bool { return !b.has(f, reap.Attachment, reap.Keep) }) &&
			!slices.ContainsFunc(f.Verdicts, func(v reap.Verdict) bool { return v.Why != reap.Owned && v.Why != reap.Alive })
	}, nil); err != nil {
		return "", err
	}
	flow, err := second.flow(ctx, peer)
	if err != nil {
		return "", err
	}

	n.containerd.Kill()
	down := time.Now()
	if err := errors.Join(first.killShim(ctx), kill(ctx, first.pid), third.killShim(ctx)); err != nil {
		return "", err
	}
	kept, err := n.whileDown(ctx, boxes, third)
	if err != nil {
		return "", err
	}
	if err := n.containerd.Start(ctx); err != nil {
		return "", err
	}
	silent := time.Since(down)
	if err := gone(ctx, third.pid); err != nil {
		return "", fmt.Errorf("containerd is back and was to end the third, whose shim is dead: %w", err)
	}
	if err := errors.Join(first.forget(ctx), third.forget(ctx)); err != nil {
		return "", err
	}
	swept, err := n.clean(ctx, boxes, first, third)
	if err != nil {
		return "", err
	}
	packets, err := flow.end()
	if err != nil {
		return "", fmt.Errorf("the second, which was left alone: %w", err)
	}
	if err := second.end(ctx); err != nil {
		return "", err
	}
	for _, id := range ids {
		if _, err := n.start(ctx, id); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("three containers alike, containerd killed for %.1f s: first dead with its shim, third lost only its shim;\n"+
		"meanwhile 0 of their %d things cleared, the third reported as alive, kept (containerd, when back, itself\n"+
		"killed it as a dead shim); then listed and cleaned exactly what the two dead had left:\n"+
		"%s; the second: %d UDP packets both ways, 0 lost", silent.Seconds(), kept, swept, packets), nil
}

// box is a container as a kubelet's pod is: its network namespace is held by a file, and its CNI ADD was called for that.
type box struct {
	*Container
	pid int
}

func (b *box) netns() string { return "/run/netns/" + b.ID }

// box starts one. Its name is its own on the whole machine, whose processes and cgroups every agent sees.
func (n *Node) box(ctx context.Context, name string) (*box, error) {
	b := &box{Container: &Container{ID: n.demo.cluster.Mark + "-" + name, node: n}}
	if _, err := n.Run(ctx, "ip", "netns", "add", b.ID); err != nil {
		return nil, err
	}
	if err := b.cni(ctx, "ADD"); err != nil {
		return nil, err
	}
	if _, err := n.ctr(ctx, "run", "-d", "--with-ns", "network:"+b.netns(), "--cgroup", n.Cgroup+"/"+b.ID, daemons.BusyboxName, b.ID, "sleep", "86400"); err != nil {
		return nil, err
	}
	out, err := n.ctr(ctx, "task", "ls")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == b.ID {
			b.pid, err = strconv.Atoi(f[1])
		}
	}
	if err != nil || b.pid == 0 {
		return nil, fmt.Errorf("%s has no process: %s: %w", b, out, err)
	}
	out, err = b.exec(ctx, "ip", "-o", "-4", "addr", "show", "dev", "eth0")
	fields := strings.Fields(out)
	if err != nil || len(fields) < 4 {
		return nil, fmt.Errorf("%s has no address: %q: %w", b, out, err)
	}
	b.Addr, _, _ = strings.Cut(fields[3], "/")
	return b, nil
}

// cni calls the plugin as containerd does.
func (b *box) cni(ctx context.Context, command string) error {
	const conf = `{"cniVersion":"1.0.0","name":"blue","type":"fairlead-cni"}`
	c := b.node.Command(ctx, "env", "CNI_COMMAND="+command, "CNI_CONTAINERID=default-"+b.ID, "CNI_NETNS="+b.netns(),
		"CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/fairlead-cni")
	c.Stdin = strings.NewReader(conf)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: CNI %s: %w: %s", b, command, err, out)
	}
	return nil
}

// killShim kills the shim alone, wherever /proc shows it.
func (b *box) killShim(ctx context.Context) error {
	root := host.DefaultRoot()
	all, err := root.Processes()
	if err != nil {
		return err
	}
	for _, p := range all {
		if strings.HasPrefix(p.Comm, "containerd-shim") && slices.Contains(root.Args(p.PID), b.ID) {
			return kill(ctx, p.PID)
		}
	}
	return fmt.Errorf("%s has no shim", b)
}

// kill ends a process that is not our child and waits until it is gone.
func kill(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	return gone(ctx, pid)
}

func gone(ctx context.Context, pid int) error {
	return await(ctx, fmt.Sprintf("process %d to end", pid), func() (bool, error) {
		_, alive := host.DefaultRoot().Process(pid)
		return !alive, nil
	})
}

// await asks again and again, bounded, where nobody tells us, until ok says that it is done, well or not. Errors before
// that are passed over; the last one is given when time is up.
func await(ctx context.Context, what string, ok func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; {
		done, err := ok()
		if done {
			return err
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("waited %s for %s", patience, what), err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// forget lets containerd remove its record. It may still be busy with clearing the dead task.
func (b *box) forget(ctx context.Context) error {
	return await(ctx, "containerd to remove its record of "+b.ID, func() (bool, error) {
		_, err := b.node.ctr(ctx, "container", "rm", b.ID)
		return err == nil, err
	})
}

// end ends a living box in order.
func (b *box) end(ctx context.Context) error {
	if _, err := b.node.ctr(ctx, "task", "rm", "--force", b.ID); err != nil {
		return err
	}
	if _, err := b.node.ctr(ctx, "container", "rm", b.ID); err != nil {
		return err
	}
	if err := b.cni(ctx, "DEL"); err != nil {
		return err
	}
	_, err := b.node.Run(ctx, "ip", "netns", "del", b.ID)
	return err
}

// of tells whether a verdict is about this box.
func (b *box) of(v reap.Verdict) bool {
	return strings.Contains(v.Resource.ID, b.ID) || strings.Contains(v.Owner, b.ID)
}

func (b *box) has(f reap.Found, kind reap.Kind, d reap.Decision) bool {
	return slices.ContainsFunc(f.Verdicts, func(v reap.Verdict) bool { return b.of(v) && v.Resource.Kind == kind && v.Decision == d })
}

// verdicts asks `fairlead orphans ls` until ok is content with the verdicts about the boxes. What is wrong at any time
// is said by never, which may be nil. The machine's cgroups and processes are everybody's: other verdicts are left out.
func (n *Node) verdicts(ctx context.Context, what string, boxes []*box, ok func(reap.Found) bool, never func(reap.Verdict) bool) error {
	var last string
	err := await(ctx, what, func() (bool, error) {
		var f reap.Found
		if err := n.ask(ctx, &f, "orphans", "ls"); err != nil {
			return false, err
		}
		f.Verdicts = slices.DeleteFunc(f.Verdicts, func(v reap.Verdict) bool {
			return !slices.ContainsFunc(boxes, func(b *box) bool { return b.of(v) })
		})
		last = fmt.Sprintf("unanswered %+v, could not look %q\n%s", f.Unanswered, f.Blind, brief(f.Verdicts))
		if never != nil {
			if i := slices.IndexFunc(f.Verdicts, never); i >= 0 {
				return true, errWrong
			}
		}
		return ok(f), nil
	})
	if err != nil {
		return fmt.Errorf("%w:\n%s", err, last)
	}
	return nil
}

var errWrong = errors.New("a wrong verdict")

func brief(verdicts []reap.Verdict) string {
	var out strings.Builder
	for _, v := range verdicts {
		fmt.Fprintf(&out, "%s %s of %s: %s, %s\n", v.Resource.Kind, v.Resource.ID, v.Owner, v.Decision, v.Reason)
	}
	return out.String()
}

// whileDown looks, for two grace times and more, that nothing is given up as long as containerd is silent, and that
// clean, asked for it by name, refuses. It gives how many things of the boxes are there.
func (n *Node) whileDown(ctx context.Context, boxes []*box, third *box) (int, error) {
	var found reap.Found
	enough := time.Now().Add(2 * grace)
	err := n.verdicts(ctx, "the third to be reported as alive, kept, while containerd is down", boxes, func(f reap.Found) bool {
		found = f
		return time.Now().After(enough) &&
			slices.ContainsFunc(f.Unanswered, func(s container.RuntimeState) bool { return s.Name == "containerd" }) &&
			slices.ContainsFunc(f.Verdicts, func(v reap.Verdict) bool {
				return third.of(v) && v.Resource.Adrift && strings.Contains(v.Reason, "alive, kept")
			})
	}, func(v reap.Verdict) bool { return v.Decision != reap.Keep })
	if err != nil {
		return 0, err
	}
	if _, alive := host.DefaultRoot().Process(third.pid); !alive {
		return 0, errors.New("the third does not live on without its shim")
	}
	_, err = n.sweep(ctx, found.Verdicts, reap.KeptBack)
	return len(found.Verdicts), err
}

// sweep asks `fairlead orphans clean --yes` for these and gives how many there were of each kind. Another result than
// those that are wanted is an error. They are named because the machine may hold what is not the demo's to clear.
func (n *Node) sweep(ctx context.Context, verdicts []reap.Verdict, wanted ...reap.Result) (map[reap.Kind]int, error) {
	args := []string{"orphans", "clean", "--yes"}
	for _, v := range verdicts {
		args = append(args, v.Ref)
	}
	var done []reap.Outcome
	if err := n.ask(ctx, &done, args...); err != nil {
		return nil, err
	}
	kinds := map[reap.Kind]int{}
	for _, o := range done {
		if !slices.Contains(wanted, o.Result) {
			return nil, fmt.Errorf("clean: %s %s: %s, want %v: %s %s", o.Resource.Kind, o.Resource.ID, o.Result, wanted, o.Reason, o.Error)
		}
		kinds[o.Resource.Kind]++
	}
	if len(done) != len(verdicts) {
		return nil, fmt.Errorf("clean: asked for %d, answered for %d", len(verdicts), len(done))
	}
	return kinds, nil
}

// clean waits until all that the dead have left is listed, with evidence, cleans it, and looks that it is gone.
func (n *Node) clean(ctx context.Context, boxes []*box, dead ...*box) (string, error) {
	var orphans []reap.Verdict
	of := func(v reap.Verdict) bool { return slices.ContainsFunc(dead, func(b *box) bool { return b.of(v) }) }
	wrong := func(v reap.Verdict) bool { return v.Decision != reap.Keep && !of(v) }
	err := n.verdicts(ctx, "what the dead have left to be listed", boxes, func(f reap.Found) bool {
		orphans = slices.DeleteFunc(slices.Clone(f.Verdicts), func(v reap.Verdict) bool { return !of(v) })
		return len(f.Unanswered) == 0 &&
			!slices.ContainsFunc(orphans, func(v reap.Verdict) bool { return v.Decision != reap.Sweep || len(v.Evidence) == 0 }) &&
			!slices.ContainsFunc(dead, func(b *box) bool { return !b.has(f, reap.Attachment, reap.Sweep) || !b.has(f, reap.NetNS, reap.Sweep) })
	}, wrong)
	if err != nil {
		return "", err
	}
	kinds, err := n.sweep(ctx, orphans, reap.Removed, reap.Quarantined)
	if err != nil {
		return "", err
	}
	for _, b := range dead {
		if err := b.nothingLeft(); err != nil {
			return "", err
		}
	}
	err = n.verdicts(ctx, "nothing of the dead to be listed", boxes, func(f reap.Found) bool { return !slices.ContainsFunc(f.Verdicts, of) }, wrong)
	var parts []string
	for kind, count := range kinds {
		parts = append(parts, fmt.Sprintf("%d × %s", count, kind))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", "), err
}

// nothingLeft looks at the host itself.
func (b *box) nothingLeft() error {
	// The file lies in the host's own /run, so it is seen from here, too, without what is mounted on it.
	if _, err := os.Lstat(b.node.Path(b.netns())); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was cleaned and is still there: %w", b.netns(), err)
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*" + b.node.Cgroup + "/" + b.ID)
	if err == nil && len(cgroups) > 0 {
		err = fmt.Errorf("%s was cleaned and has cgroups still: %v", b, cgroups)
	}
	return err
}

// flow is UDP traffic both ways between a box and a container of the other host. The box's ends run in its namespace
// beside it: as tasks of its containerd they would end with that.
type flow struct{ send, receive [2]*Load }

func (b *box) flow(ctx context.Context, peer *Container) (_ *flow, err error) {
	f := &flow{}
	beside := func(args ...string) *Load {
		l := &Load{what: b.String() + ": traffic " + strings.Join(args, " ")}
		l.cmd = b.node.Command(ctx, "nsenter", append([]string{"--net=" + b.netns(), filepath.Join(b.node.demo.bin, "traffic")}, args...)...)
		l.cmd.Stdout, l.cmd.Stderr = &l.stdout, &l.stderr
		err = errors.Join(err, l.cmd.Start())
		return l
	}
	within := func(args ...string) *Load {
		l, startErr := peer.load(ctx, args...)
		err = errors.Join(err, startErr)
		return l
	}
	f.receive[0], f.receive[1] = beside("udp-receive", ":7100"), within("udp-receive", ":7100")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(listening(ctx, b.Container, "udp", 7100), listening(ctx, peer, "udp", 7100)); err != nil {
		return nil, err
	}
	f.send[0], f.send[1] = within("udp-send", b.Addr+":7100", "200"), beside("udp-send", peer.Addr+":7100", "200")
	return f, err
}

// end stops the traffic and gives how many packets were sent. A lost or repeated one is an error.
func (f *flow) end() (packets int, err error) {
	if err := errors.Join(f.send[0].stop(), f.send[1].stop()); err != nil {
		return 0, err
	}
	for i := range f.send {
		sent, err := delivered(f.send[i], f.receive[i])
		if err != nil {
			return 0, err
		}
		packets += sent
	}
	return packets, nil
}
