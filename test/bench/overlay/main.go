// Command overlay measures the data path and the writing of peers: containers of two hosts that the agent joins, by VXLAN
// and plainly, beside flannel's VXLAN with the bridge plugin and beside two bare hosts, in one run on one kernel; and a
// host with 5,000 peers. It prints one JSON line.
//
// Every host is a network namespace of its own, with real daemons; nothing is left. On a loaded machine only the ratios
// mean something.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// report is the last line of the output. What could not be measured is null.
type report struct {
	Bench     string            `json:"bench"`
	Peers     map[string]string `json:"peers"`
	Host      *float64          `json:"host_tcp_gbps"`
	TCP       *float64          `json:"vxlan_tcp_over_flannel"`
	PPS       *float64          `json:"vxlan_pps_over_flannel"`
	TCPHost   *float64          `json:"vxlan_tcp_over_host"`
	DirectTCP *float64          `json:"direct_tcp_over_host"`
	DirectRTT *float64          `json:"direct_rtt_over_host_us"`
	VXLANRTT  *float64          `json:"vxlan_rtt_over_host_us"`
	Apply     *float64          `json:"peers5000_apply_ms"`
	Restart   *float64          `json:"peers5000_restart_ms"`
	Writes    *float64          `json:"peers5000_restart_writes"`
	Notes     []string          `json:"notes"`
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// num is f with three places; null where it is no number.
func num(f float64) *float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil
	}
	f = math.Round(f*1000) / 1000
	return &f
}

type options struct {
	bin, reference, version, flannel, only string
	short                                  bool
}

func main() {
	runtime.LockOSThread() // what it starts ends with this thread (Pdeathsig), and other threads end early
	var err error
	if len(os.Args) > 1 && slices.Contains([]string{"sink", "flood", "echo", "ping"}, os.Args[1]) {
		err = traffic(os.Args[1], os.Args[2:])
	} else {
		err = bench()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-overlay:", err)
		os.Exit(1)
	}
}

func bench() error {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of fairlead and fairlead-cni")
	flag.StringVar(&o.reference, "reference", ".tools/cni-plugins", "directory of the reference plugins")
	flag.StringVar(&o.version, "reference-version", "", "their version")
	flag.StringVar(&o.flannel, "flannel", ".tools/flannel", "flannel's program")
	flag.StringVar(&o.only, "only", "", "paths or peers: measure no more than that")
	flag.BoolVar(&o.short, "short", os.Getenv("SHORT") == "1", "a minute or less")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "fairlead-bench-overlay-")
	if err != nil {
		return err
	}
	w := &world{o: o, dir: dir, quiet: 2 * time.Second, times: 3, r: report{Bench: "overlay", Peers: map[string]string{}, Notes: []string{}}}
	if err := errors.Join(w.run(ctx), os.RemoveAll(dir)); err != nil {
		return err
	}
	line, err := json.Marshal(w.r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}
