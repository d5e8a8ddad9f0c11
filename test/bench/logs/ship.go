package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship"
)

// jobEnv makes this program the shipper.
const jobEnv = "FAIRLEAD_BENCH_SHIP"

type job struct {
	Dir        string
	Config     logship.Config
	Containers []container.Container
	Profile    string
}

// still is an inventory that never changes.
type still struct{ snap *container.Snapshot }

func (s still) Snapshot() *container.Snapshot { return s.snap }

func (s still) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		if yield(s.snap) {
			<-ctx.Done()
		}
	}
}

// ship runs the part as the agent does, with its state directory, until ctx ends.
func ship(ctx context.Context, text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	if j.Profile != "" {
		f, err := os.Create(j.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	st, err := state.Open(filepath.Join(j.Dir, "state"), log)
	if err != nil {
		return err
	}
	snap := &container.Snapshot{Containers: j.Containers, Runtimes: []container.RuntimeState{{Name: "bench", Answered: true}}}
	l, err := logship.New(j.Config, logship.Deps{Inventory: still{snap}, State: st, Stat: new(stat.Registry), Log: log, Host: "bench"})
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

// process is one that is measured.
type process struct {
	cmd  *exec.Cmd
	idle int64 // RSS before there was anything to do
}

func startShip(j job) (*process, error) {
	j.Config.Pins = filepath.Join(j.Dir, "pins")
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), jobEnv+"="+string(text))
	return start(cmd)
}

func start(cmd *exec.Cmd) (*process, error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	time.Sleep(time.Second) // until it is idle
	p.idle = p.status("VmRSS:")
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// cpu is user and system time of all threads so far (proc(5): ticks of 10 ms).
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("read %s", b)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// fine is cpu from the scheduler's account, in nanoseconds, for what is nearly idle.
func (p *process) fine() (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if fields := strings.Fields(string(b)); len(fields) > 0 {
			ns, _ := strconv.ParseInt(fields[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// status reads a size from /proc/PID/status, in bytes.
func (p *process) status(key string) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}
