package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// drain serves the DELs that plugins left while no agent listened. One that cannot be read is set aside.
func (d *Door) drain(ctx context.Context) error {
	names, err := wire.Spooled(d.socket)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.drainOne(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// keepDrained serves now and then what came into the spool since, until ctx ends.
func (d *Door) keepDrained(ctx context.Context) error {
	tick := time.NewTicker(spoolEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		names, err := wire.Spooled(d.socket)
		for _, name := range names {
			err = errors.Join(err, d.drainInTurn(ctx, name))
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("spooled DELs are not served yet", "err", err)
		}
	}
}

// drainInTurn serves a spooled DEL, unless a later request for the same container is under way and overtakes it.
func (d *Door) drainInTurn(ctx context.Context, name string) error {
	var req wire.Request
	if text, err := os.ReadFile(name); err == nil && json.Unmarshal(text, &req) == nil {
		defer d.turns.take(plan.Key{Owner: req.ContainerID, IfName: req.IfName})()
	}
	return d.drainOne(ctx, name) // reads it again
}

func (d *Door) drainOne(ctx context.Context, name string) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the plugin that wrote it found us meanwhile
	}
	if err != nil {
		return err
	}
	var req wire.Request
	if err := json.Unmarshal(text, &req); err != nil || req.Command != "DEL" || req.ContainerID == "" {
		aside := filepath.Join(filepath.Dir(name), "unreadable-"+filepath.Base(name))
		d.log.Error("spooled DEL could not be read and was set aside", "path", name, "moved_to", aside, "err", err)
		return os.Rename(name, aside)
	}
	if err := d.network.Detach(ctx, plan.Key{Owner: req.ContainerID, IfName: req.IfName}, ""); err != nil {
		return err
	}
	d.log.Info("spooled DEL served", "container", req.ContainerID, "ifname", req.IfName)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keep spools a DEL that cannot be served now, because the overlay is not up: a DEL never waits for anybody. It is
// served before any later request.
func (d *Door) keep(req wire.Request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := wire.Spool(d.socket, req); err != nil {
		return err
	}
	d.drained = false
	d.log.Warn("DEL spooled until the overlay is up", "container", req.ContainerID, "ifname", req.IfName)
	return nil
}

// forget drops a spooled DEL that a request served since has overtaken: a plugin that waited in vain for a stopped
// agent leaves one, and it must not detach the container that has the same id later.
func (d *Door) forget(req wire.Request) {
	err := os.Remove(wire.SpoolPath(d.socket, req.ContainerID, req.IfName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("overtaken DEL could not be taken from the spool", "container", req.ContainerID, "err", err)
	}
}
