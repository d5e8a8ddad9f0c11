package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// kernelWatch records what changes in the hosts' network namespaces, with the tools that an operator would use.
type kernelWatch struct {
	cmds    []*exec.Cmd
	outputs []*output
}

// watchKernel starts `ip monitor` and `nft monitor` on both hosts.
func (d *Demo) watchKernel(ctx context.Context) (*kernelWatch, error) {
	w := &kernelWatch{}
	for _, n := range d.nodes {
		for _, argv := range [][]string{
			{"ip", "-o", "monitor", "link", "address", "route", "neigh"},
			{"nft", "monitor"},
		} {
			cmd, out := n.Command(ctx, argv[0], argv[1:]...), &output{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %s: %w", n.Name, argv[0], err), w.stop())
			}
			out.from = n.Name + ": " + argv[0]
			w.cmds, w.outputs = append(w.cmds, cmd), append(w.outputs, out)
		}
	}
	// A monitor says nothing when it has begun to listen. So each is made to see one change, on an own object.
	for i, n := range d.nodes {
		if err := w.awaitMonitors(ctx, n, w.outputs[2*i], w.outputs[2*i+1]); err != nil {
			return nil, errors.Join(err, w.stop())
		}
	}
	return w, nil
}

func (w *kernelWatch) awaitMonitors(ctx context.Context, n *Node, ip, nft *output) error {
	for range 50 {
		if _, err := n.Run(ctx, "sh", "-ec", "ip route add blackhole 198.51.100.1; ip route del blackhole 198.51.100.1; nft add table inet demo; nft delete table inet demo"); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if strings.Contains(ip.text(), "Deleted") && strings.Contains(nft.text(), "delete table inet demo") {
			ip.reset()
			nft.reset()
			return nil
		}
	}
	return fmt.Errorf("%s: `ip monitor` or `nft monitor` does not show changes: %s%s", n.Name, ip.text(), nft.text())
}

// dynamic is what the kernel itself does to the neighbours that it learns and to its own knowledge of namespaces.
var dynamic = regexp.MustCompile(`\b(REACHABLE|STALE|DELAY|PROBE|FAILED|INCOMPLETE)\b`)

// end stops the monitors and gives one line for each change that they saw.
func (w *kernelWatch) end() ([]string, error) {
	err := w.stop()
	var changes []string
	for _, out := range w.outputs {
		for line := range strings.Lines(out.text()) {
			line = strings.TrimSpace(line)
			if line != "" && !dynamic.MatchString(line) {
				changes = append(changes, out.from+": "+line)
			}
		}
	}
	return changes, err
}

func (w *kernelWatch) stop() error {
	var errs []error
	for _, cmd := range w.cmds {
		errs = append(errs, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // ended by our signal
	}
	return errors.Join(errs...)
}

// output gathers what a running command prints. It is safe for concurrent use.
type output struct {
	from string
	mu   sync.Mutex
	buf  strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Reset()
}
