// Package cni is a conformance suite for CNI plugins: the spec's words, and what it only implies (crashes, concurrency,
// leaks), tried on a real kernel by executing the plugin as a runtime does.
//
// It knows nothing of Fairlead. A Plugin says where the binaries are, what the network configuration looks like, and
// how a daemon is started if there is one; package drivers has those of fairlead and of the CNI project's reference
// plugins, broken is a plugin that is wrong in one way at a time, and table prints who passes what.
//
// Each case gets a Host: a network namespace of its own with a directory of its own, so a plugin that leaks spoils no
// other case. Nothing is left behind: what stays in a Host dies with its namespace.
package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Plugin is what the suite is pointed at.
type Plugin struct {
	Name string
	Path []string // CNI_PATH
	Env  []string // added to every call
	// Conflist gives a network configuration list on a host. Its cniVersion is replaced by that of the case. The
	// plugin that the suite speaks of stands first. The network is IPv4 with room for 200 containers at least.
	Conflist func(*Host) string
	// Fixed gives the n-th address (from 1) that a container may ask for.
	Fixed func(n int) string
	// Start starts the plugin's daemon in the host's namespace; Kill ends it as a crash would. Nil: there is none.
	Start func(context.Context, *Host) (Daemon, error)
	// Leases says which addresses are given out, for people and for comparing; nil: not to be seen.
	Leases func(*Host) (string, error)
	// Patience is how long things may stay after a namespace is gone without a DEL; 0: 30 s.
	Patience time.Duration
	// Lacks names cases that the plugin does not claim to pass, and why.
	Lacks map[string]string
}

// Daemon is a running daemon of a plugin.
type Daemon interface {
	Stop() error // orderly, and waits
	Kill() error // SIGKILL, and waits
}

// Case is one thing that a plugin must do.
type Case struct {
	Name   string // short, for tables and for faults
	Says   string // the requirement in a sentence
	Daemon bool   // it is about a daemon's absence
	Run    func(context.Context, *World) error
}

// Cases are all, in the order in which they are run.
func Cases() []Case { return slices.Concat(protocol, attaching, detaching, checking, wishes, crashes) }

// Outcome is how one case went.
type Outcome struct {
	Case
	Took    time.Duration
	Err     error
	Skipped string
}

// Run runs one case against a plugin. It must run as root.
func Run(ctx context.Context, p Plugin, c Case) Outcome {
	o := Outcome{Case: c}
	if why, lacks := p.Lacks[c.Name]; lacks {
		o.Skipped = why
		return o
	}
	if c.Daemon && p.Start == nil {
		o.Skipped = "there is no daemon"
		return o
	}
	began := time.Now()
	o.Err = run(ctx, p, c)
	o.Took = time.Since(began)
	return o
}

func run(ctx context.Context, p Plugin, c Case) (err error) {
	w, err := NewWorld(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.start(ctx); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	return c.Run(ctx, w)
}
