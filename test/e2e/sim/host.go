package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Host is one simulated host.
type Host struct {
	Name    string
	Address netip.Addr
	Dir     string // its files as the machine sees them; see Path
	Cgroup  string // the parent, in every hierarchy, for its containers' cgroups

	mark   string
	procs  string   // cgroup.procs file that marks its processes
	uts    *os.File // its UTS namespace, see Owns
	holder *exec.Cmd
}

// own are the directories that each host has for itself. The rest of the file system is the machine's.
var own = []string{
	"/run", "/etc/cni", "/opt/cni", "/etc/fairlead",
	"/var/lib/fairlead", "/var/lib/containerd", "/var/lib/cni", "/var/log", "/srv",
}

func (c *Cluster) newHost(ctx context.Context, name string) (*Host, error) {
	h := &Host{Name: name, mark: c.Mark, Dir: filepath.Join(c.Dir, name), Cgroup: "/" + c.Mark + "/" + name}
	var err error
	if h.procs, err = markingCgroup(h.Cgroup + "/daemons"); err != nil {
		return nil, err
	}
	// The holder keeps the namespaces alive while nothing else runs in them. Go makes the new mount namespace private,
	// so no mount leaks out.
	h.holder = exec.Command("sleep", "infinity")
	h.holder.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		Setsid:       true,
	}
	h.holder.Env = append(os.Environ(), markVariable+"="+c.Mark)
	if err := h.holder.Start(); err != nil {
		return nil, fmt.Errorf("start holder of the namespaces: %w", err)
	}
	if err := os.WriteFile(h.procs, []byte(h.pidText()), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("mark holder: %w", err), h.holder.Process.Kill(), h.holder.Wait())
	}
	if h.uts, err = os.Open("/proc/" + h.pidText() + "/ns/uts"); err != nil {
		return nil, fmt.Errorf("hold namespace: %w", err)
	}
	if err := h.mountOwn(ctx); err != nil {
		return nil, err
	}
	return h, h.runAll(ctx, "hostname "+name, "ip link set lo up")
}

// mountOwn gives the host its own directories. Where the machine lacks one, an overlay over its top folder (/etc, /opt,
// /var) takes the mount point, so that the machine is not touched.
func (h *Host) mountOwn(ctx context.Context) error {
	var tops, lines []string
	for _, dir := range own {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			return err
		}
		if top := "/" + strings.SplitN(dir, "/", 3)[1]; !isDir(dir) && !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	for _, top := range tops {
		scratch := filepath.Join(h.Dir, ".overlay", top)
		lines = append(lines, fmt.Sprintf("mkdir -p %[1]s/upper %[1]s/work; mount -t overlay -o lowerdir=%[2]s,upperdir=%[1]s/upper,workdir=%[1]s/work overlay %[2]s", scratch, top))
	}
	for _, dir := range own {
		lines = append(lines, fmt.Sprintf("mkdir -p %[1]s; mount --bind %[2]s %[1]s", dir, h.Path(dir)))
	}
	return h.runAll(ctx, lines...)
}

// Path gives the file on the machine that the host sees as path, which must be below one of the host's own directories.
func (h *Host) Path(path string) string { return filepath.Join(h.Dir, path) }

// PID is the process that holds the host's namespaces, for nsenter.
func (h *Host) PID() int { return h.holder.Process.Pid }

// Owns tells whether the process is on the host, also after Close. It goes by the UTS namespace, which each process of
// the host shares and which the Host holds open: the kernel gives a namespace's number to the next one as soon as
// nobody holds it, and the others would keep links and mounts alive.
func (h *Host) Owns(pid int) bool {
	ours, err := h.uts.Stat()
	if err != nil {
		return false
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/ns/uts", pid))
	return err == nil && os.SameFile(ours, its) // an error: the process has ended
}

func (h *Host) pidText() string { return strconv.Itoa(h.PID()) }

// Enter is the command line, for a person to type, that opens a shell on the host.
func (h *Host) Enter() string { return "nsenter -t " + h.pidText() + " -n -m -u" }

// Prefix is what a command line must begin with for the command to run on the host. The process joins the host's
// cgroup first, so that it and its offspring carry the mark whatever becomes of their parents.
func (h *Host) Prefix() []string {
	return []string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, h.procs,
		"env", markVariable + "=" + h.mark, "nsenter", "-t", h.pidText(), "-n", "-m", "-u", "--"}
}

// Command prepares a command that runs on the host, in a process group of its own: Ctrl-C at the terminal reaches the
// demo alone, which then ends things in order.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	argv := append(h.Prefix(), append([]string{name}, args...)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Run runs a command on the host to its end and gives what it printed on stdout. The error carries stderr.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := h.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s %s: %w: %s", h.Name, name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// runAll runs lines of shell, one after the other, and stops at the first that fails.
func (h *Host) runAll(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if _, err := h.Run(ctx, "/bin/sh", "-ec", line); err != nil {
			return err
		}
	}
	return nil
}

// reap waits for the holder, which must have been killed.
func (h *Host) reap() {
	if h.holder != nil && h.holder.ProcessState == nil {
		_ = h.holder.Wait() // killed by Close: its exit code tells nothing
	}
}
