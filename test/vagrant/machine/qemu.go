package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/fairlead-dev/fairlead/test/vagrant/line"
)

// Config is what a machine is made of.
type Config struct {
	Name    string // also its host name
	Addr    string // in the machines' network, with its length: 192.168.77.11/24
	Dir     string // for its sockets, its console and its disks' changes; a short path
	Kernel  string // vmlinuz
	Initrd  string
	Product string // disk with our files, read only
	Debian  string // disk with Debian; empty for a small machine
	MiB     int    // memory
	CPUs    int
	KVM     bool
	Switch  *Switch
}

// qemu is the process of one machine.
type qemu struct {
	pid  int
	qmp  net.Conn
	said *json.Decoder // what QEMU says on qmp
	done chan struct{} // closed when the process has ended
}

// Start starts a machine and returns as soon as QEMU runs; Boot waits for the machine.
func Start(cfg Config) (*Machine, error) {
	m := &Machine{Name: cfg.Name, Log: filepath.Join(cfg.Dir, cfg.Name+".console")}
	wire, q, err := start(cfg, m.Log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	m.Client, m.control = line.NewClient(wire), q
	go func() { defer wire.Close(); _ = m.Client.Run() }() // what ended it is told to every caller
	return m, nil
}

func start(cfg Config, console string) (net.Conn, *qemu, error) {
	// QEMU connects to both when it starts, so nobody has to wait for a socket.
	agent, err := listen(filepath.Join(cfg.Dir, cfg.Name+".agent"))
	if err != nil {
		return nil, nil, err
	}
	defer agent.Close()
	qmp, err := listen(filepath.Join(cfg.Dir, cfg.Name+".qmp"))
	if err != nil {
		return nil, nil, err
	}
	defer qmp.Close()
	stderr := filepath.Join(cfg.Dir, cfg.Name+".qemu")
	q := &qemu{done: make(chan struct{})}
	if err := q.launch(cfg.args(console, agent.Addr().String(), qmp.Addr().String()), cfg.Dir, stderr); err != nil {
		return nil, nil, err
	}
	// Accept ends with an error when QEMU ends before it has connected.
	go func() { defer agent.Close(); defer qmp.Close(); <-q.done }()
	wire, err := agent.Accept()
	if err == nil {
		q.qmp, err = qmp.Accept()
	}
	if err != nil {
		q.stop()
		said, _ := os.ReadFile(stderr)
		return nil, nil, fmt.Errorf("qemu ended: %s", said)
	}
	q.said = json.NewDecoder(q.qmp)
	if err := q.command("qmp_capabilities"); err != nil {
		q.stop()
		return nil, nil, err
	}
	return wire, q, nil
}

// args is QEMU's command line.
func (cfg Config) args(console, agent, qmp string) []string {
	accel, cpu := "tcg,thread=multi", "max"
	if cfg.KVM {
		accel, cpu = "kvm", "host"
	}
	cmdline := "console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 mitigations=off fairlead.name=" + cfg.Name + " fairlead.addr=" + cfg.Addr
	args := []string{
		"-name", cfg.Name, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu,
		"-smp", fmt.Sprint(cfg.CPUs), "-m", fmt.Sprint(cfg.MiB), "-kernel", cfg.Kernel, "-initrd", cfg.Initrd, "-append", cmdline,
		"-serial", "file:" + console, "-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=" + agent, "-device", "virtserialport,chardev=agent,name=" + line.Port,
		"-chardev", "socket,id=qmp,path=" + qmp, "-mon", "chardev=qmp,mode=control",
	}
	if cfg.Switch != nil {
		args = append(args, "-netdev", "stream,id=lan,server=off,addr.type=unix,addr.path="+cfg.Switch.Path, "-device", "virtio-net-pci,netdev=lan,mac="+mac(cfg.Name))
	}
	disks := [][2]string{{"product", cfg.Product}}
	if cfg.Debian != "" {
		disks = append(disks, [2]string{"debian", cfg.Debian})
	}
	for _, d := range disks {
		if d[1] != "" {
			args = append(args, "-drive", "if=none,format=raw,snapshot=on,id="+d[0]+",file="+d[1], "-device", "virtio-blk-pci,drive="+d[0]+",serial="+d[0])
		}
	}
	return args
}

// mac is the same for the same name, and nobody else's: the second bit says "locally administered".
func mac(name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	s := h.Sum32()
	return fmt.Sprintf("52:54:%02x:%02x:%02x:%02x", byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}

func listen(path string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

func (q *qemu) launch(args []string, dir, stderr string) error {
	out, err := os.Create(stderr)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // where the disks' changes go; QEMU unlinks the file at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, not the process; so this thread waits.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended does not matter, that it ended does
			close(q.done)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	q.pid = cmd.Process.Pid
	return nil
}

// command gives QEMU a command and waits until it has obeyed, which it does at once.
func (q *qemu) command(name string) error {
	if err := json.NewEncoder(q.qmp).Encode(map[string]string{"execute": name}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for {
		var a struct {
			Return *json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := q.said.Decode(&a); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if a.Error != nil {
			return fmt.Errorf("%s: %s", name, a.Error.Desc)
		}
		if a.Return != nil {
			return nil // what came before is the greeting, or events
		}
	}
}

func (q *qemu) reset(context.Context) error { return q.command("system_reset") }

func (q *qemu) stop() {
	if q.running() {
		_ = syscall.Kill(q.pid, syscall.SIGKILL) // not yet waited for, so the number is still its own
		<-q.done
	}
	if q.qmp != nil {
		_ = q.qmp.Close() // a second time at worst
	}
}

func (q *qemu) running() bool {
	select {
	case <-q.done:
		return false
	default:
		return true
	}
}

// KVM tells whether this host's KVM boots the kernel of cfg before ctx ends: /dev/kvm alone says little inside a virtual
// machine.
func KVM(ctx context.Context, cfg Config) bool {
	cfg.Name, cfg.Debian, cfg.KVM, cfg.Switch = "kvm", "", true, nil
	m, err := Start(cfg)
	if err != nil {
		return false
	}
	defer m.Stop()
	return m.Boot(ctx) == nil
}
