// Package machine runs test machines: QEMU processes with Debian's kernel, joined by a switch that is part of this
// process. Nothing of the host is changed: disks are read through throw-away copies that no file name leads to, the
// network is made of unix sockets, and a machine dies with the process that started it. Vagrant gives the same machines
// to people who have VirtualBox or libvirt.
//
//	story ── line ══ virtio serial ══ guest      machine ══ unix socket ══ Switch ══ unix socket ══ machine
package machine

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/test/vagrant/line"
)

// Machine is a running machine. Its methods may be called concurrently, but Boot and Reset of one machine not.
type Machine struct {
	*line.Client
	Name string
	Log  string // file with its serial console; empty when it cannot be seen

	boot    string // id of the boot that was last waited for
	control control
}

// control is how the machine is held from outside.
type control interface {
	reset(context.Context) error // at once, without telling the machine; returns before it is up again
	stop()                       // and waits for the end; may be called twice
	running() bool
}

// Boot waits until the machine answers, after its start or after it has rebooted by itself.
func (m *Machine) Boot(ctx context.Context) error {
	boot, err := m.Client.Boot(ctx, m.boot)
	if err != nil {
		return fmt.Errorf("boot %s: %w; its console is in %s", m.Name, err, m.Log)
	}
	m.boot = boot
	return nil
}

// Reset pulls the reset line, as a hand on the button would: nothing is flushed, nothing is ended. It waits until the
// machine answers again. Commands that ran have ended with line.ErrLost.
func (m *Machine) Reset(ctx context.Context) error {
	if err := m.control.reset(ctx); err != nil {
		return fmt.Errorf("reset %s: %w", m.Name, err)
	}
	return m.Boot(ctx)
}

// Stop ends the machine and waits for its end. What it wrote to its disks is gone. It may be called twice.
func (m *Machine) Stop() { m.control.stop() }

// Running tells whether the machine has not been stopped and has not ended.
func (m *Machine) Running() bool { return m.control.running() }
