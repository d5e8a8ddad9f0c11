package daemons

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CollectorDaemon is a running OpenTelemetry Collector that takes logs in three protocols and writes them to a file.
type CollectorDaemon struct {
	*Process
	Ports CollectorPorts
	Logs  string // file with one ExportLogsServiceRequest as JSON a line
}

// CollectorPorts are the addresses, host:port on loopback, that a collector listens on; it cannot choose them itself.
type CollectorPorts struct{ OTLP, Loki, Fluent string }

// Collector starts program, which is built from test/peers/collector, and returns when it listens.
func Collector(ctx context.Context, opts Options, program string, ports CollectorPorts) (*CollectorDaemon, error) {
	d := &CollectorDaemon{Ports: ports, Logs: filepath.Join(opts.Dir, "logs.json")}
	config := filepath.Join(opts.Dir, "collector.yaml")
	// Without append a restart would empty the file.
	text := fmt.Sprintf(`receivers:
  otlp: {protocols: {http: {endpoint: %q}}}
  loki: {protocols: {http: {endpoint: %q}}, use_incoming_timestamp: true}
  fluentforward: {endpoint: %q}
exporters:
  file: {path: %q, append: true, flush_interval: 100ms}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {logs: {receivers: [otlp, loki, fluentforward], exporters: [file]}}
`, ports.OTLP, ports.Loki, ports.Fluent, d.Logs)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure collector: %w", err)
	}
	var err error
	if d.Process, err = start(opts, "collector", program, "--config", "file:"+config); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.listens); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

func (d *CollectorDaemon) listens(context.Context) error {
	for _, address := range []string{d.Ports.OTLP, d.Ports.Loki, d.Ports.Fluent} {
		if err := d.listensOn(address); err != nil {
			return err
		}
	}
	return nil
}

// Start brings the collector back after Kill or Stop, with the same ports and the same file.
func (d *CollectorDaemon) Start(ctx context.Context) error {
	if err := d.launch(); err != nil {
		return fmt.Errorf("start the collector again: %w", err)
	}
	return d.await(ctx, d.listens)
}
