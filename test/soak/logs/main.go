// Command logs is the long test of log delivery: numbered lines into a log that is rotated, to a file sink, with a bitmap
// of what arrived. First the agent has the lowest weight beside processes that take all the processors there are, then it
// is killed at random moments. Nothing may be lost and nothing doubled. After that come the kernel tests of logship that
// have a long form, from the program that the first argument names.
//
// It owns a directory below /tmp and the processes that it starts, and leaves nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship"
)

// shipEnv makes this program the agent's log shipper, in that directory.
const shipEnv = "FAIRLEAD_SOAK_SHIP"

// spinEnv makes this program one that only takes a processor.
const spinEnv = "FAIRLEAD_SOAK_SPIN"

const (
	rate      = 20_000 // lines a second
	rotation  = 500 * time.Millisecond
	kept      = 5
	drainTime = time.Minute
)

type result struct {
	Soak      string `json:"soak"`
	Lines     int    `json:"lines"`
	Rotations int    `json:"rotations"`
	Kills     int    `json:"kills"`
	Lost      int    `json:"lost"`
	Doubled   int    `json:"doubled"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments of the kills")
	flag.Parse()
	if dir := os.Getenv(shipEnv); dir != "" {
		exit(ship(ctx, dir))
		return
	}
	if os.Getenv(spinEnv) != "" {
		for ctx.Err() == nil { // what asks takes the processor too
		}
		return
	}
	short := os.Getenv("SHORT") != ""
	r := &result{Soak: "logs"}
	err := soak(ctx, *seed, short, r)
	if err == nil && r.Lost+r.Doubled > 0 {
		err = fmt.Errorf("%d lines lost, %d doubled", r.Lost, r.Doubled)
	}
	if flag.NArg() > 0 && !short && ctx.Err() == nil {
		err = errors.Join(err, cases(ctx, flag.Arg(0)))
	}
	text, _ := json.Marshal(r)
	fmt.Println(string(text))
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// still is an inventory of nothing.
type still struct{}

func (still) Snapshot() *container.Snapshot { return &container.Snapshot{} }

func (still) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		if yield(&container.Snapshot{}) {
			<-ctx.Done()
		}
	}
}

func ship(ctx context.Context, dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	st, err := state.Open(filepath.Join(dir, "state"), log)
	if err != nil {
		return err
	}
	cfg := logship.DefaultConfig()
	cfg.Pins = filepath.Join(dir, "pins")
	cfg.Files = []logship.File{{Path: filepath.Join(dir, "log/*")}}
	cfg.Sinks = []logship.SinkConfig{{Name: "copy", Type: "file", Path: filepath.Join(dir, "copy")}}
	l, err := logship.New(cfg, logship.Deps{Inventory: still{}, State: st, Stat: new(stat.Registry), Log: log, Host: "soak"})
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

// again starts this program as something else.
func again(env string) (*exec.Cmd, error) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), env)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.Start()
}

func start(dir string) (*exec.Cmd, error) { return again(shipEnv + "=" + dir) }

func kill(c *exec.Cmd) {
	_ = c.Process.Kill()
	_ = c.Wait() // killed
}

// soak runs both rounds and adds up what they found.
func soak(ctx context.Context, seed uint64, short bool, r *result) error {
	kills, rotations := 20, 60
	if short {
		kills, rotations = 6, 20
	}
	fmt.Printf("seed %d: %d lines/s, rotated every %s, %d generations kept; about %s\n", seed, rate, rotation, kept, map[bool]string{true: "half a minute", false: "8 minutes"}[short])
	random := rand.New(rand.NewPCG(seed, 0))
	if err := round(ctx, "at the lowest weight", 20, r, starved); err != nil {
		return err
	}
	return round(ctx, "killed at random", rotations, r, func(ctx context.Context, dir string) (stop func(), err error) {
		return killing(ctx, dir, kills, rotations, random, r)
	})
}

// round lets lines flow while the shipper is treated badly, then lets it drain.
func round(ctx context.Context, name string, rotations int, r *result, treat func(ctx context.Context, dir string) (stop func(), err error)) (err error) {
	dir, err := os.MkdirTemp("/tmp", "fairlead-soak-logs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
		return err
	}
	type end struct {
		lines int
		err   error
	}
	written := make(chan end, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		n, err := flow(ctx, filepath.Join(dir, "log/a.log"), rotations)
		written <- end{n, err}
	}()
	stop, err := treat(ctx, dir)
	if err != nil {
		cancel()
		<-written
		return err
	}
	defer stop()
	w := <-written
	if w.err != nil {
		return w.err
	}
	var lost, doubled int
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if lost, doubled = tally(filepath.Join(dir, "copy"), w.lines); lost == 0 || time.Since(begun) > drainTime || ctx.Err() != nil {
			break
		}
	}
	fmt.Printf("%s: %d lines, %d rotations, %d lost, %d doubled\n", name, w.lines, rotations, lost, doubled)
	r.Lines, r.Rotations, r.Lost, r.Doubled = r.Lines+w.lines, r.Rotations+rotations, r.Lost+lost, r.Doubled+doubled
	return ctx.Err()
}

// starved runs the shipper with the lowest weight beside processes that take every processor.
func starved(_ context.Context, dir string) (stop func(), err error) {
	var all []*exec.Cmd
	stop = func() {
		for _, c := range all {
			kill(c)
		}
	}
	agent, err := start(dir)
	if err != nil {
		return nil, err
	}
	all = append(all, agent)
	for range runtime.NumCPU() {
		c, err := again(spinEnv + "=1")
		if err != nil {
			stop()
			return nil, err
		}
		all = append(all, c)
	}
	for _, task := range tasks(agent.Process.Pid) {
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, task, 19); err != nil && !errors.Is(err, syscall.ESRCH) {
			stop()
			return nil, fmt.Errorf("give the shipper the lowest weight: %w", err)
		}
	}
	return stop, nil
}

// tasks gives the threads of a process: each has a weight of its own, which those that it makes inherit.
func tasks(pid int) (out []int) {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // it has ended
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// killing kills the shipper at random moments while lines flow; the last one goes on.
func killing(ctx context.Context, dir string, kills, rotations int, random *rand.Rand, r *result) (stop func(), err error) {
	agent, err := start(dir)
	if err != nil {
		return nil, err
	}
	pause := time.Duration(rotations) * rotation / time.Duration(kills+1)
	for ; r.Kills < kills; r.Kills++ {
		select {
		case <-time.After(pause/2 + time.Duration(random.Int64N(int64(pause)))):
		case <-ctx.Done():
		}
		kill(agent)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if agent, err = start(dir); err != nil {
			return nil, err
		}
		if r.Kills%5 == 4 {
			fmt.Printf("%d of %d kills\n", r.Kills+1, kills)
		}
	}
	return func() { kill(agent) }, nil
}

// long are the tests with a long form: sinks that are away, containers that vanish, lost events, a full disk.
const long = "Vanish|WhileASink|OneGeneration|Overflowed|StateDirectoryIsFull|RealContainer"

// cases runs them and shows how each ended.
func cases(ctx context.Context, program string) error {
	c := exec.CommandContext(ctx, program, "-test.run", long, "-test.v", "-test.timeout", "20m")
	c.Env = append(os.Environ(), "FAIRLEAD_SOAK=1")
	c.Dir = "logship"
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		if l := in.Text(); !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "time=") {
			fmt.Println(l)
		}
	}
	return c.Wait()
}

// flow writes numbered lines and rotates by renaming.
func flow(ctx context.Context, path string, rotations int) (lines int, err error) {
	n, begin := 0, time.Now()
	var b []byte
	for rotated := 0; rotated < rotations && ctx.Err() == nil; rotated++ {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return n, err
		}
		for opened := time.Now(); time.Since(opened) < rotation; time.Sleep(2 * time.Millisecond) {
			b = b[:0]
			for due := int(time.Since(begin).Seconds() * rate); n < due; n++ {
				b = fmt.Appendf(b, "a line of some length, as programs write them line %d\n", n)
			}
			if _, err := f.Write(b); err != nil {
				return n, err
			}
		}
		_ = f.Close()
		for k := kept - 1; k >= 1; k-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1)) // not there yet
		}
		if err := os.Rename(path, path+".1"); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

func tally(path string, n int) (lost, doubled int) {
	seen := make([]int, n)
	text, _ := os.ReadFile(path) // not there yet
	for line := range strings.Lines(string(text)) {
		if k, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]); err == nil && k < n {
			seen[k]++
		}
	}
	for _, times := range seen {
		if times == 0 {
			lost++
		} else {
			doubled += times - 1
		}
	}
	return lost, doubled
}
