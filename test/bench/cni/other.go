package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// starts is how much longer the plugin's start takes than that of an empty Go program, and the plugin's size in MB.
func (w *world) starts(ctx context.Context, n int) (over, mb float64, err error) {
	plugin, empty := filepath.Join(w.o.bin, "fairlead-cni"), filepath.Join(w.dir, "empty")
	if err := os.WriteFile(empty+".go", []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return 0, 0, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", empty, empty+".go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("build an empty program: %w: %s", err, out)
	}
	size, err := os.Stat(plugin)
	if err != nil {
		return 0, 0, err
	}
	var took [2][]time.Duration
	for range n {
		for i, bin := range []string{plugin, empty} {
			c := exec.CommandContext(ctx, bin)
			c.Env = []string{"CNI_COMMAND=VERSION"}
			began := time.Now()
			if err := c.Run(); err != nil {
				return 0, 0, err
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	return ms(p50(took[0])) - ms(p50(took[1])), float64(size.Size()) / 1e6, nil
}

// rss is the agent's resident memory in MiB.
func (w *world) rss() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	return float64(kb) / 1024, err
}

// fdatasync is what one costs after a line as long as the journal's, on the disk of the state directory. ADD does not
// wait for it: the agent syncs once a second.
func (w *world) fdatasync() (float64, error) {
	f, err := os.Create(filepath.Join(w.dir, "state", "bench.sync"))
	if err != nil {
		return 0, err
	}
	line := strings.Repeat("x", 400) + "\n"
	var took []time.Duration
	for range 50 {
		began := time.Now()
		if _, err := f.WriteString(line); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		took = append(took, time.Since(began))
	}
	return ms(p50(took)), errors.Join(f.Close(), os.Remove(f.Name()))
}

// crowded compares ADD with and without foreign tracked connections, for a port of TCP and one of UDP. It measures
// before and after the crowd, because the machine does not stand still.
func (w *world) crowded(ctx context.Context, p plugin, r *report) error {
	const n = 30
	adds := func() (out [2]time.Duration, err error) {
		var took [2][]time.Duration
		for i := range 2 * n {
			b, err := newBox(fmt.Sprintf("c%d", i))
			if err != nil {
				return out, err
			}
			b.protocol = []string{"tcp", "udp"}[i%2]
			_, t, err := p.add(ctx, b)
			if err == nil {
				_, err = p.del(ctx, b)
			}
			b.end()
			if err != nil {
				return out, err
			}
			took[i%2] = append(took[i%2], t)
		}
		return [2]time.Duration{p50(took[0]), p50(took[1])}, nil
	}
	before, err := adds()
	if err != nil {
		return err
	}
	if err := foreign(r.Foreign); err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("no foreign connections: %v", err))
		return nil
	}
	full, err := adds()
	if err != nil {
		return err
	}
	if _, err := sh("conntrack -F 2>/dev/null"); err != nil {
		return err
	}
	after, err := adds()
	if err != nil {
		return err
	}
	ratio := func(i int) *float64 {
		x := 2 * ms(full[i]) / (ms(before[i]) + ms(after[i]))
		return &x
	}
	r.TCP, r.UDP = ratio(0), ratio(1)
	return nil
}
