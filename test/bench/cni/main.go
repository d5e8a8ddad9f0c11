// Command cni times ADD and DEL of fairlead-cni beside the reference plugins (bridge + host-local + portmap) in one run,
// on one kernel, through libcni with real exec and one host port each, and prints one JSON line.
//
// It runs in a network namespace of its own and leaves nothing. On a loaded machine only the ratios mean something.
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

	Late    int      `json:"first_packet_late"`  // first packets that were sent later than 1 ms after ADD's answer
	Open    int      `json:"after_del_failures"` // first packets that still passed after DEL's answer
	Sync    float64  `json:"fdatasync_p50_ms"`   // what ADD would take longer if it waited for the disk
	Start   float64  `json:"plugin_start_over_empty_ms"`
	Size    float64  `json:"plugin_mb"`
	RSS     float64  `json:"rss_mib_200_over_idle"`
	Foreign int      `json:"conntrack_entries"`
	TCP     *float64 `json:"conntrack_tcp_add_ratio"` // ADD p50 with so many foreign entries over that without
	UDP     *float64 `json:"conntrack_udp_add_ratio"`
	LoadAvg string   `json:"load"`
	Notes   []string `json:"notes"`
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
