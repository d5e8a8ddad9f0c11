// Command logs is the long test of log delivery: numbered lines into a log that is rotated, under an agent that is killed
// at random moments, to a file sink, with a bitmap of what arrived. Nothing may be lost and nothing doubled.
//
// It owns a directory below /tmp and the processes that it starts, and leaves nothing.
package main

import (
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
	r, err := soak(ctx, *seed, os.Getenv("SHORT") != "")
	text, _ := json.Marshal(r)
	fmt.Println(string(text))
	if err == nil && r.Lost+r.Doubled > 0 {
		err = fmt.Errorf("%d lines lost, %d doubled", r.Lost, r.Doubled)
	}
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

func start(dir string) (*exec.Cmd, error) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), shipEnv+"="+dir)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, c.Start()
}

// soak kills the shipper at random moments while lines flow, then lets it drain.
func soak(ctx context.Context, seed uint64, short bool) (r result, err error) {
	r.Soak = "logs"
	kills, rotations := 20, 60
	if short {
		kills, rotations = 6, 20
	}
	dir, err := os.MkdirTemp("/tmp", "fairlead-soak-logs-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
		return r, err
	}
	fmt.Printf("seed %d: %d lines/s, rotated every %s, %d generations kept, %d kills\n", seed, rate, rotation, kept, kills)
	random := rand.New(rand.NewPCG(seed, 0))
	written := make(chan error, 1)
	go func() { written <- flow(ctx, filepath.Join(dir, "log/a.log"), rotations, &r) }()
	agent, err := start(dir)
	if err != nil {
		return r, err
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	for pause := time.Duration(rotations) * rotation / time.Duration(kills+1); r.Kills < kills; r.Kills++ {
		select {
		case <-time.After(pause/2 + time.Duration(random.Int64N(int64(pause)))):
		case <-ctx.Done():
			return r, ctx.Err()
		}
		_ = agent.Process.Kill()
		_ = agent.Wait() // killed
		if agent, err = start(dir); err != nil {
			return r, err
		}
	}
	if err := <-written; err != nil {
		return r, err
	}
	for end := time.Now().Add(drainTime); ; time.Sleep(200 * time.Millisecond) {
		r.Lost, r.Doubled = tally(filepath.Join(dir, "copy"), r.Lines)
		if r.Lost == 0 || time.Now().After(end) || ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
}

// flow writes numbered lines and rotates by renaming.
func flow(ctx context.Context, path string, rotations int, r *result) error {
	n, begin := 0, time.Now()
	var b []byte
	for r.Rotations < rotations && ctx.Err() == nil {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		for opened := time.Now(); time.Since(opened) < rotation; time.Sleep(2 * time.Millisecond) {
			b = b[:0]
			for due := int(time.Since(begin).Seconds() * rate); n < due; n++ {
				b = fmt.Appendf(b, "a line of some length, as programs write them line %d\n", n)
			}
			if _, err := f.Write(b); err != nil {
				return err
			}
		}
		_ = f.Close()
		for k := kept - 1; k >= 1; k-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1)) // not there yet
		}
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
		r.Rotations++
	}
	r.Lines = n
	return nil
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
