// Demo shows Fairlead's main job on two simulated hosts of this machine: `make demo` builds and runs it.
//
// Each host has its own containerd, runc, rsyslog and `fairlead agent`. The demo starts containers as anybody would,
// with `ctr run --cni`, then shows for each thing that Fairlead promises one line with one real figure. It ends with
// exit 1 at the first thing that is not true.
//
//	demo            run, and leave nothing behind
//	KEEP=1 demo     leave all of it running, and print how to look around
//	demo -clean     end what KEEP=1, or a demo that was killed, left
//
// It owns what carries its mark (see package sim) and, at its end, looks whether any of that is left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// kind is the beginning of the mark of every demo.
const kind = "fairlead-demo"

var errInterrupted = errors.New("interrupted")

func main() {
	bin := flag.String("bin", "bin", "directory with fairlead and fairlead-cni")
	clean := flag.Bool("clean", false, "only end what earlier demos left")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, *bin, *clean, os.Getenv("KEEP") != "")
	switch {
	case errors.Is(err, errInterrupted):
		fmt.Fprintf(os.Stderr, "\n%v\n", err)
		os.Exit(130)
	case err != nil:
		fmt.Fprintf(os.Stderr, "\n  NOT TRUE  %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, clean, keep bool) error {
	cleared, err := sim.Sweep(kind, clean)
	if len(cleared) > 0 {
		fmt.Printf("ended what earlier demos left: %s\n", strings.Join(cleared, ", "))
	}
	if err != nil || clean {
		return err
	}
	if err := os.RemoveAll(savedLogs); err != nil {
		return err
	}
	began := time.Now()
	before, err := sim.Look()
	if err != nil {
		return err
	}
	d, err := newDemo(ctx, bin, keep)
	if err == nil {
		err = d.show(ctx)
	}
	if ctx.Err() != nil {
		err = errInterrupted // whatever that broke
	}
	if d == nil {
		return err
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, d.saveLogs())
	}
	if keep && ctx.Err() == nil && len(d.nodes) > 1 {
		d.lookAround()
		return errors.Join(err, d.cluster.Keep())
	}
	// The clean-up must also run when ctx has ended by Ctrl-C.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, d.end(bounded), d.nothingLeft(bounded, before))
	if err == nil {
		fmt.Printf("\nAll of it was true; it took %.0f s. `make demo KEEP=1` leaves it running to look around.\n", time.Since(began).Seconds())
	}
	return err
}
