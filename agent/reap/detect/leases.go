package detect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/reap"
)

// leases finds the addresses that the CNI plugin host-local has given out: DIR/NETWORK/ADDRESS, a file that names the
// container and its interface. Those of the overlay are its own to speak of.
type leases struct{ Host }

// Owned implements reap.Owner.
func (l leases) Owned(context.Context) ([]reap.Resource, error) {
	var out []reap.Resource
	for _, dir := range l.Leases {
		for _, network := range subdirs(dir) {
			some, err := leasesOf(dir, network)
			if err != nil {
				return nil, fmt.Errorf("read leases of network %s: %w", network, err)
			}
			out = append(out, some...)
		}
	}
	return out, nil
}

func leasesOf(dir, network string) ([]reap.Resource, error) {
	entries, err := os.ReadDir(filepath.Join(dir, network))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []reap.Resource
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil || !e.Type().IsRegular() {
			continue // its lock, or last_reserved_ip.N
		}
		r, ok, err := lease(filepath.Join(dir, network, e.Name()))
		if err != nil {
			return nil, err
		}
		if ok {
			r.Room = filepath.Join(dir, quarantineName) // beside the networks: host-local walks through all that is below one
			r.Evidence = append([]string{fmt.Sprintf("host-local's lease of %s in network %s", addr, network)}, r.Evidence...)
			out = append(out, r)
		}
	}
	return out, nil
}

// lease reads one file; it answers false when it has gone.
func lease(path string) (reap.Resource, bool, error) {
	text, err := os.ReadFile(path)
	inst, st, ok := instance(path)
	if !ok || errors.Is(err, fs.ErrNotExist) {
		return reap.Resource{}, false, nil
	}
	if err != nil {
		return reap.Resource{}, false, err
	}
	// A file system may give a later file the same inode.
	r := reap.Resource{Kind: reap.Lease, ID: path, Instance: fmt.Sprintf("%s %d", inst, st.ModTime().UnixNano()), Since: st.ModTime(), Dir: path}
	id, ifname, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // it ends lines by \r\n, and once wrote no second one
	r.Claim.CNI = strings.TrimSpace(id)
	switch {
	case r.Claim.CNI == "":
		r.ReportOnly = "the lease names no container, so nothing tells whose it was"
	case ifname == "":
		r.Evidence = []string{"given to " + r.Claim.CNI}
	default:
		r.Evidence = []string{fmt.Sprintf("given to %s for %s", r.Claim.CNI, ifname)}
	}
	return r, true, nil
}

// Hold implements reap.Holder by host-local's own lock: while it is held nobody gives or takes an address of the network.
func (leases) Hold(r reap.Resource) (free func() error, err error) {
	path := filepath.Join(filepath.Dir(r.Dir), "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open host-local's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s, which host-local may hold: %w", path, err), f.Close())
	}
	now, there, err := lease(r.Dir)
	switch {
	case err != nil:
	case !there:
		err = fmt.Errorf("lease %s has gone", r.ID)
	case now.Instance != r.Instance || now.Claim.CNI != r.Claim.CNI:
		err = fmt.Errorf("lease %s is %s's by now", r.ID, now.Claim.CNI)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil // with the descriptor goes the lock
}

// Release implements reap.Owner.
func (leases) Release(_ context.Context, r reap.Resource) error {
	if now, there, err := lease(r.Dir); err != nil || !there || now.Instance != r.Instance {
		return err
	}
	return errMovedOnly
}
