package daemons

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// JournalDaemon is a running systemd-journald that is not the machine's own. What containers of a daemon with the same
// /run send to the journal does not reach it: it has a /run of its own.
type JournalDaemon struct {
	*Process
	Directory string // of its journal files, for journalctl --directory
	Socket    string // where it takes entries in the journal's native protocol
}

// journaldPath is where Debian and most others have it; it is not in PATH.
const journaldPath = "/lib/systemd/systemd-journald"

// Journald starts systemd-journald with a /run of its own and returns when it takes entries. It needs no systemd.
func Journald(ctx context.Context, opts Options) (*JournalDaemon, error) {
	if _, err := os.Stat(journaldPath); err != nil {
		return nil, fmt.Errorf("start journald: %w", err)
	}
	d := &JournalDaemon{Directory: filepath.Join(opts.Dir, "run/log/journal"), Socket: filepath.Join(opts.Dir, "run/systemd/journal/socket")}
	for _, dir := range []string{filepath.Dir(d.Socket), d.Directory} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("start journald: %w", err)
		}
	}
	var err error
	if d.Process, err = start(opts, "systemd-journald", journaldPath); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.takes); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

func (d *JournalDaemon) takes(ctx context.Context) error {
	c, err := new(net.Dialer).DialContext(ctx, "unixgram", d.Socket)
	if err != nil {
		return err
	}
	return c.Close()
}
