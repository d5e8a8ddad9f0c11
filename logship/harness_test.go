package logship

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
)

// inventory is a container.Inventory whose snapshots the test publishes.
type inventory struct {
	mu      sync.Mutex
	snap    *container.Snapshot
	changed chan struct{}
}

func newInventory(containers ...container.Container) *inventory {
	inv := &inventory{changed: make(chan struct{}, 1)}
	inv.publish(containers, nil)
	return inv
}

func (i *inventory) publish(containers []container.Container, gone []container.Tombstone) {
	i.mu.Lock()
	runtimes := []container.RuntimeState{{Name: "docker", Answered: true}}
	if i.snap != nil {
		runtimes = i.snap.Runtimes
	}
	i.snap = &container.Snapshot{Containers: containers, Gone: gone, Runtimes: runtimes}
	i.mu.Unlock()
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

func (i *inventory) Snapshot() *container.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.snap
}

func (i *inventory) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-i.changed:
				if !yield(i.Snapshot()) {
					return
				}
			}
		}
	}
}

// ship is a running Logship.
type ship struct {
	*Logship
	stop func()
}

// sink gives the status of one sink, zero before there is one.
func (s ship) sink(i int) SinkStatus {
	if all := s.Sinks(); i < len(all) {
		return all[i]
	}
	return SinkStatus{}
}

func run(t testing.TB, dir string, cfg Config, inv Inventory) ship {
	t.Helper()
	return begin(t, build(t, dir, cfg, inv))
}

// hurried is run for tests of what happens with a tick, and not of what must not wait for one.
func hurried(t testing.TB, dir string, cfg Config, inv Inventory) ship {
	t.Helper()
	l := build(t, dir, cfg, inv)
	l.tick = 20 * time.Millisecond
	return begin(t, l)
}

func begin(t testing.TB, l *Logship) ship {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return ship{l, stop}
}

func build(t testing.TB, dir string, cfg Config, inv Inventory) *Logship {
	t.Helper()
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	st, err := state.Open(filepath.Join(dir, "state"), log)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Pins == "" {
		cfg.Pins = filepath.Join(dir, "pins")
	}
	l, err := New(cfg, Deps{Inventory: inv, State: st, Stat: new(stat.Registry), Log: log, Host: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// eventually waits for what other goroutines bring about; it fails the test when that takes a minute, which no busy
// machine needs.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// lines gives the lines of a file, none when it is missing.
func lines(path string) []string {
	b, _ := os.ReadFile(path)
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// appendTo writes text to the end of path with one write.
func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, text)
}

// complete tells whether no line is missing.
func complete(got []string, n int) bool {
	lost, _, _ := tally(got, n)
	return lost == 0
}

// tally counts the numbers 0..n-1 that stand as "line N" at the ends of the lines.
func tally(got []string, n int) (lost, doubled int, report string) {
	seen := make([]int, n)
	for _, l := range got {
		i := strings.LastIndex(l, "line ")
		if i < 0 {
			continue
		}
		if k, err := strconv.Atoi(l[i+5:]); err == nil && k < n {
			seen[k]++
		}
	}
	var first []string
	for k, times := range seen {
		if times == 0 {
			lost++
		} else {
			doubled += times - 1
		}
		if times != 1 && len(first) < 10 {
			first = append(first, fmt.Sprintf("%d×%d", k, times))
		}
	}
	return lost, doubled, strings.Join(first, " ")
}

func cri(text string) string { return "2026-11-21T09:20:00.123456789Z stdout F " + text + "\n" }
