package daemons

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// FirewalldDaemon is a running firewalld with a message bus of its own, in the network namespace it was started in.
type FirewalldDaemon struct {
	*Process
	bus *Process
	Bus string // address of the bus, for DBUS_SYSTEM_BUS_ADDRESS
}

// busConfig lets root say and own everything.
const busConfig = `<busconfig><type>system</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
`

// Firewalld starts a bus and firewalld and returns when its rules are in force.
func Firewalld(ctx context.Context, opts Options) (*FirewalldDaemon, error) {
	d := &FirewalldDaemon{Bus: "unix:path=" + filepath.Join(opts.Dir, "bus")}
	config, system := filepath.Join(opts.Dir, "bus.conf"), filepath.Join(opts.Dir, "etc")
	err := errors.Join(os.WriteFile(config, fmt.Appendf(nil, busConfig, d.Bus), 0o644), os.MkdirAll(system, 0o755))
	if err != nil {
		return nil, fmt.Errorf("configure firewalld: %w", err)
	}
	if d.bus, err = start(opts, "dbus-daemon", "dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile"); err != nil {
		return nil, err
	}
	err = d.bus.await(ctx, func(context.Context) error { _, err := os.Stat(filepath.Join(opts.Dir, "bus")); return err })
	if err == nil {
		d.Process, err = start(opts, "firewalld", "env", "DBUS_SYSTEM_BUS_ADDRESS="+d.Bus,
			"firewalld", "--nofork", "--nopid", "--system-config", system, "--log-file", filepath.Join(opts.Dir, "firewalld.own.log"))
	}
	if err == nil {
		err = d.await(ctx, func(ctx context.Context) error { _, err := d.Command(ctx, "--state"); return err })
	}
	if err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

// Command runs firewall-cmd and gives what it printed.
func (d *FirewalldDaemon) Command(ctx context.Context, args ...string) (string, error) {
	return d.Run(ctx, append([]string{"env", "DBUS_SYSTEM_BUS_ADDRESS=" + d.Bus, "firewall-cmd"}, args...)...)
}

// Stop ends firewalld, which takes its rules away, and then its bus.
func (d *FirewalldDaemon) Stop(ctx context.Context) error {
	var err error
	if d.Process != nil {
		err = d.Process.Stop(ctx)
	}
	return errors.Join(err, d.bus.Stop(ctx))
}
