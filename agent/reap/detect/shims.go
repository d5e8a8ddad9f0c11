package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// shims finds containerd's minders. One whose container is gone waits for ever.
type shims struct{ Host }

// shim is what a minder's command line says.
type shim struct {
	host.Process
	namespace, id, address string
}

// Owned implements reap.Owner.
func (s shims) Owned(context.Context) ([]reap.Resource, error) {
	all, err := s.Processes()
	if err != nil {
		return nil, err
	}
	var out []reap.Resource
	for _, m := range findShims(s.Root, all) {
		out = append(out, s.resource(m, all))
	}
	return out, nil
}

func findShims(root host.Root, all []host.Process) []shim {
	var out []shim
	for _, p := range all {
		if !strings.HasPrefix(p.Comm, "containerd-shim") {
			continue
		}
		if m, ok := parseShim(root.Args(p.PID)); ok {
			m.Process = p
			out = append(out, m)
		}
	}
	return out
}

// parseShim reads "containerd-shim-runc-v2 -namespace N -id I -address A". With a word behind it ("start", "delete") it
// is a short command of that program and no minder.
func parseShim(args []string) (m shim, ok bool) {
	if len(args) == 0 || !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim") {
		return m, false
	}
	for i := 1; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			return m, false
		}
		into := map[string]*string{"-namespace": &m.namespace, "-id": &m.id, "-address": &m.address}[strings.Replace(args[i], "--", "-", 1)]
		if into != nil && i+1 < len(args) {
			i++
			*into = args[i]
		}
	}
	return m, m.namespace != "" && m.id != ""
}

func (s shims) resource(m shim, all []host.Process) reap.Resource {
	r := reap.Resource{
		Kind: reap.Shim, ID: fmt.Sprintf("%s/%s", m.namespace, m.id), Instance: fmt.Sprintf("%d:%d", m.PID, m.Start),
		Where: fmt.Sprintf("process %d", m.PID), Claim: claimOf("containerd", m.namespace, m.id), PIDs: children(m.PID, all),
		Evidence: []string{fmt.Sprintf("process %d is the shim of %s/%s for the containerd on %s", m.PID, m.namespace, m.id, m.address)},
	}
	if m.namespace != "moby" && m.address != "" {
		r.Claim.Sockets = []string{m.address}
		if real, err := filepath.EvalSymlinks(m.address); err == nil {
			r.Claim.Sockets[0] = real // as the inventory names it
		}
	}
	if len(r.PIDs) == 0 {
		r.Evidence = append(r.Evidence, "it minds no process")
	}
	return r
}

func children(pid int, all []host.Process) (out []int) {
	for _, p := range all {
		if p.Parent == pid {
			out = append(out, p.PID)
		}
	}
	return out
}

// Release implements reap.Owner: it kills the shim, by a descriptor that cannot come to mean another process.
func (s shims) Release(_ context.Context, r reap.Resource) error {
	var pid int
	var start uint64
	if _, err := fmt.Sscanf(r.Instance, "%d:%d", &pid, &start); err != nil {
		return fmt.Errorf("read %q: %w", r.Instance, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	all, err := s.Processes()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(p host.Process) bool { return p.PID == pid && p.Start == start }) {
		return nil // the number is another process's
	}
	if minded := children(pid, all); len(minded) > 0 {
		return fmt.Errorf("shim %d minds processes %v", pid, minded)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill shim %d: %w", pid, err)
	}
	return nil
}
