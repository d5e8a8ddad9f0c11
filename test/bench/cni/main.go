// Command cni times ADD and DEL of fairlead-cni beside the reference plugins (bridge + host-local) in one run, on one
// kernel, through libcni with real exec, and prints one JSON line (keys as in make help's bench-cni).
//
// It runs in a network namespace of its own and leaves nothing. The reference chain has no host port here, because
// ours has none yet: with portmap it is several times slower than shown.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// report is the last line of the output.
type report struct {
	Bench   string            `json:"bench"`
	Peers   map[string]string `json:"peers"`
	Add     float64           `json:"add_p50_ms"`
	AddPeer float64           `json:"add_p50_ms_peer"`
	AddX    float64           `json:"add_ratio"`
	Del     float64           `json:"del_p50_ms"`
	DelX    float64           `json:"del_ratio"`
	Rate    float64           `json:"par32_add_per_s"`
	RateX   float64           `json:"par32_rate_ratio"`
	ParP99  float64           `json:"par32_add_p99_ms"`
	First   int               `json:"first_packet_failures"`
	Gone    *float64          `json:"links_gone_p99_ms"`
	Growth  float64           `json:"growth_1000"`
	CPU     float64           `json:"cpu_ms_per_pair"`
	Leaks   int               `json:"leaks"`
	Notes   []string          `json:"notes"`
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of fairlead and fairlead-cni")
	flag.StringVar(&o.reference, "reference", ".tools/cni-plugins", "directory of the reference plugins")
	flag.StringVar(&o.version, "reference-version", "", "their version")
	flag.BoolVar(&o.short, "short", os.Getenv("SHORT") == "1", "a minute or less")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cni:", err)
		os.Exit(1)
	}
}

type options struct {
	bin, reference, version string
	short                   bool
}

// run puts the program into a network namespace of its own, and measures there.
func run(ctx context.Context, o options) error {
	const inside = "FAIRLEAD_BENCH_INSIDE"
	if os.Getenv(inside) == "" {
		c := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), inside+"=1")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		return c.Run()
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	r, err := w.measure(ctx)
	if err = errors.Join(err, w.close()); err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}
