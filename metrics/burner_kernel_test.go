//go:build kernel

package metrics

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const burnerMark = "FAIRLEAD_METRICS_BURNER"

func TestMain(m *testing.M) {
	if os.Getenv(burnerMark) != "" {
		burner()
		return
	}
	os.Exit(m.Run())
}

// burner is the process that is measured. It does what its standard input says and answers each line with the CPU time
// it has used so far, in nanoseconds, by its own account.
func burner() {
	var kept [][]byte
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(arg)
		switch verb {
		case "burn": // so many nanoseconds of CPU time
			for until := used() + int64(n); used() < until; {
				for range 100_000 {
				}
			}
		case "touch", "share": // so many bytes of private memory, or of shared
			kind := map[string]int{"touch": unix.MAP_PRIVATE, "share": unix.MAP_SHARED}[verb]
			b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, kind|unix.MAP_ANON)
			if err != nil {
				fmt.Println(err)
				return
			}
			for i := 0; i < n; i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
		case "direct": // "BYTES PATH": past the page cache
			if err := direct(arg); err != nil {
				fmt.Println(err)
				return
			}
		case "link": // gives its eth0 an address
			if err := link("eth0", inside, outside); err != nil {
				fmt.Println(err)
				return
			}
		case "sockets": // so many connections to itself
			if err := connect(n); err != nil {
				fmt.Println(err)
				return
			}
		case "send": // so many datagrams
			if err := send(outside, n); err != nil {
				fmt.Println(err)
				return
			}
		}
		fmt.Println(used())
	}
	_ = kept
}

func used() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for oneself
	return u.Utime.Nano() + u.Stime.Nano()
}

// process is a burner inside the cgroup.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	pid int
	in  *os.File
	out *bufio.Scanner

	start float64 // its CPU time before it was put into the cgroup
}

func (g *testCgroup) start(t *testing.T) *process { return g.startIn(t, 0) }

// startIn starts it in the new namespaces that flags name.
func (g *testCgroup) startIn(t *testing.T, flags uintptr) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	cmd.Env = append(os.Environ(), burnerMark+"=1", "GOMAXPROCS=1")
	read, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = read
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	t.Cleanup(func() {
		_ = in.Close() // ends it
		if cmd.ProcessState != nil {
			return // it was waited for
		}
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	p := &process{t: t, cmd: cmd, pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
	p.start = p.do("hello") // it has started, so all that it does from now on is on command
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// do gives the process a command and waits for its answer: the seconds of CPU time it has used.
func (p *process) do(command string) float64 {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("%q: the process ended", command)
	}
	ns, err := strconv.ParseInt(p.out.Text(), 10, 64)
	if err != nil {
		p.t.Fatalf("%q: %s", command, p.out.Text())
	}
	return float64(ns) / 1e9
}
