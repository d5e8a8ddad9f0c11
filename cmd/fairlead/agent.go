package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/config"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/heap"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/agent/supervisor"
	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/metrics"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/door/cni"
	"github.com/fairlead-dev/fairlead/volumes"
)

const agentHelp = `fairlead agent [--config F]

The daemon: it runs every part until SIGTERM. Without a file it serves this host alone. SIGHUP reads the file again,
applies what can be applied and names what needs a restart. Example, several agents on one machine:

  fairlead agent --config /etc/fairlead/fairlead.yaml`

func runAgent(e env, args []string) error {
	f := newFlags(e, "agent", agentHelp)
	path := f.String("config", defaultConfigFile, "configuration `file`")
	if err := f.parse(args); err != nil {
		return err
	}
	file, _, err := loadFile(*path, *path != defaultConfigFile)
	if err != nil {
		return err
	}
	heap.KeepSmall()
	log, level := newLog(e, file.Log)
	release, err := state.Lock(file.StateDir)
	if err != nil {
		return err
	}
	defer func() { _ = release() }() // the process ends here anyway
	d, err := newDaemon(file, log)
	if err != nil {
		return err
	}
	d.level = level
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return d.run(ctx, *path)
}

func logLevel(name string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil || strings.ContainsAny(name, "+-") {
		return l, fmt.Errorf("expected debug, info, warn or error, found %q", name)
	}
	return l, nil
}

func newLog(e env, cfg Log) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	if l, err := logLevel(cfg.Level); err == nil {
		level.Set(l)
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, opts)), level
	}
	return slog.New(slog.NewTextHandler(e.stderr, opts)), level
}

// daemon is the agent put together. Parts meet here and nowhere else.
type daemon struct {
	file  File
	log   *slog.Logger
	stats *stat.Registry
	level *slog.LevelVar

	super     *supervisor.Supervisor
	inventory *container.Inventory
	overlay   *overlay.Overlay
	metrics   *metrics.Metrics
	logship   *logship.Logship
	volumes   *volumes.Volumes
	reaper    *reap.Reaper
	parts     []agent.Part
}

// newDaemon builds every part. It opens the state directory; nothing else is touched before run.
func newDaemon(f File, log *slog.Logger) (*daemon, error) {
	dir, err := state.Open(f.StateDir, log)
	if err != nil {
		return nil, err
	}
	d := &daemon{file: f, log: log, stats: &stat.Registry{}}
	stats := d.stats
	stats.Gauge("fairlead_build_info", "1, labelled with the version of this build.", stat.Label{Name: "version", Value: version}).Set(1)
	budget := host.NewDescriptors(descriptorLimit())
	part := func(name string) *slog.Logger { return log.With("part", name) }

	d.super = supervisor.New(log, stats)
	if d.super.Notify, err = supervisor.NotifierFromEnv(os.LookupEnv); err != nil {
		return nil, err
	}
	if d.inventory, err = container.New(f.Runtimes, container.Deps{
		Log: part("inventory"), Stat: stats, Host: f.root(),
	}); err != nil {
		return nil, err
	}
	overlayState, err := dir.Sub("overlay")
	if err != nil {
		return nil, err
	}
	if d.overlay, err = overlay.New(f.Overlay, overlay.Deps{
		Log: part("overlay"), Stats: stats, State: overlayState, Root: f.root(), Board: d.inventory.Board(), Containers: d.inventory,
		NodeName: f.Node.Name, NodeAddr: f.Node.Address, Version: version,
	}); err != nil {
		return nil, err
	}
	metricsState, err := dir.Sub("metrics")
	if err != nil {
		return nil, err
	}
	if d.metrics, err = metrics.New(f.Metrics, metrics.Deps{
		State: metricsState,
		Log:   part("metrics"), Stats: stats, Root: f.root(), Inventory: d.inventory, Descriptors: budget.Holder("metrics", 60),
	}); err != nil {
		return nil, err
	}
	logshipState, err := dir.Sub("logship")
	if err != nil {
		return nil, err
	}
	if d.logship, err = logship.New(f.Logship, logship.Deps{
		Log: part("logship"), Stat: stats, State: logshipState, Host: f.Node.Name, Root: f.root(), Inventory: d.inventory, Descriptors: budget.Holder("logship", 30),
	}); err != nil {
		return nil, err
	}
	volumesState, err := dir.Sub("volumes")
	if err != nil {
		return nil, err
	}
	if d.volumes, err = volumes.New(f.Volumes, volumes.Deps{
		Log: part("volumes"), Stats: stats, State: volumesState, Inventory: d.inventory, Node: f.Node.Name,
	}); err != nil {
		return nil, err
	}
	if d.reaper, err = newReaper(f, dir, d, stats, part("orphans")); err != nil {
		return nil, err
	}
	operators := api.New(f.agentSocket(), "fairlead", part("api"))
	d.routes(operators)
	historyRoutes(operators, d.metrics.History())
	volumeRoutes(operators, d.volumes)
	orphanRoutes(operators, d.reaper)
	web := api.NewHTTP(f.Listen, part("http"))
	web.SetWebConfig(f.WebConfig)
	web.Handle("GET /metrics", d.metrics)
	web.Handle("GET /healthz", httpFunc(d.super.ServeHealthz))
	door := cni.New(f.cniSocket(), d.overlay, part("cni"), stats)

	// They stop in the reverse order: whoever uses another comes after it.
	d.parts = []agent.Part{
		operators.Part(),
		web.Part(),
		{Name: "inventory", Run: d.inventory.Run},
		{Name: "overlay", Run: d.overlay.Run},
		{Name: "cni", Run: door.Run},
		{Name: "metrics", Run: d.metrics.Run},
		{Name: "logship", Run: d.logship.Run},
		{Name: "volumes", Run: d.volumes.Run},
		{Name: "orphans", Run: d.reaper.Run},
	}
	if h := d.metrics.History(); h != nil {
		d.parts = append(d.parts, agent.Part{Name: "history", Run: h.Run})
	}
	return d, nil
}

// descriptorLimit is what the kernel allows this process, less what sockets and libraries need.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 512
	}
	return max(256, int(min(limit.Cur, 1<<20))-256)
}

// run keeps the parts running until ctx ends.
func (d *daemon) run(ctx context.Context, path string) error {
	d.log.Info("agent started", "version", version, "node", d.file.Node.Name, "pid", os.Getpid(), "config", path)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	reloads := agent.NewGroup(ctx)
	reloads.Go(func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				d.reload(ctx, path)
			}
		}
	})
	d.super.Ready()
	began := time.Now()
	err := d.super.Run(ctx, d.parts...)
	err = errors.Join(err, reloads.Wait())
	d.log.Info("agent stopped", "ran", time.Since(began).Round(time.Millisecond))
	return err
}

// reload reads the file again and applies what can be applied while running. A file with a fault changes nothing.
func (d *daemon) reload(ctx context.Context, path string) {
	next, _, err := loadFile(path, path != defaultConfigFile)
	if err != nil {
		d.log.Error("configuration was not reloaded; the old one stays in force", "err", err)
		return
	}
	done, err := d.super.Reload(ctx, config.Diff(d.file, next),
		supervisor.Reloader{Part: "log", Keys: []string{"log.level"}, Apply: func(context.Context) error {
			level, err := logLevel(next.Log.Level)
			if err == nil {
				d.level.Set(level)
			}
			return err
		}},
		supervisor.Reloader{Part: "overlay", Keys: []string{"overlay.peers"}, Apply: func(context.Context) error {
			return d.overlay.SetPeers(next.Overlay.Peers)
		}},
	)
	// What was applied is in force; what was not still differs from the file at the next SIGHUP.
	d.file.Log.Level = next.Log.Level
	if err == nil {
		d.file.Overlay.Peers = next.Overlay.Peers
	}
	if err != nil {
		d.log.Error("configuration was reloaded in part", "applied", done.Applied, "needs_restart", done.Restart, "refused", done.Failed, "err", err)
		return
	}
	d.log.Info("configuration reloaded", "applied", done.Applied, "needs_restart", done.Restart)
}
