package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"
)

// collectorPath is the OpenTelemetry Collector of test/peers, as its make target builds it.
const collectorPath = ".tools/collector"

// collector follows a file of CRI lines with the collector's filelog receiver and its container parser, which decodes
// what we decode, and sends over OTLP/HTTP with snappy. It keeps no positions, which costs it nothing. Without the path of
// the file it would warn at each line, at a price. A part of the corpus is enough for its rate.
func (b *bench) collector() (rate float64, err error) {
	if _, err := os.Stat(collectorPath); err != nil {
		return 0, err
	}
	dir, err := b.room()
	if err != nil {
		return 0, err
	}
	path, log, conf := filepath.Join(dir, "part.log"), filepath.Join(dir, "log/c.log"), filepath.Join(dir, "conf.yaml")
	lines := min(b.lines, 500_000)
	size, err := write(path, b.seed, lines, criFrame)
	if err != nil {
		return 0, err
	}
	t := newTally(lines)
	addr, stop, err := otlpServer(t.add)
	if err != nil {
		return 0, err
	}
	defer stop()
	text := fmt.Sprintf(`receivers:
  filelog:
    include: [%s]
    start_at: beginning
    include_file_path: true
    operators: [{type: container, format: containerd, add_metadata_from_filepath: false}]
exporters:
  otlp_http:
    endpoint: http://%s
    compression: snappy
    sending_queue: {block_on_overflow: true, queue_size: 100000, sizer: items, batch: {flush_timeout: 200ms, min_size: 8192}}
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines: {logs: {receivers: [filelog], exporters: [otlp_http]}}
`, log, addr)
	if err := errors.Join(os.Mkdir(filepath.Dir(log), 0o755), os.WriteFile(conf, []byte(text), 0o644)); err != nil {
		return 0, err
	}
	if out, err := exec.Command(collectorPath, "--version").Output(); err == nil {
		b.r.Peers["opentelemetry filelog"] = strings.TrimPrefix(strings.TrimSpace(string(out)), "collector version ")
	}
	p, err := start(exec.Command(collectorPath, "--config", "file:"+conf))
	if err != nil {
		return 0, err
	}
	defer p.stop()
	return b.run(p, func() error { return os.Rename(path, log) }, t, size)
}

// otlpServer takes export requests and hands each body to add.
func otlpServer(add func([]byte)) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && r.Header.Get("Content-Encoding") == "snappy" {
			body, err = s2.Decode(nil, body)
		}
		if err == nil {
			// ExportLogsServiceRequest: resource logs, scope logs, records, body, string.
			err = walk(body, []protowire.Number{1, 2, 2, 5, 1}, func(line []byte) { add(bytes.TrimSuffix(line, []byte("\n"))) })
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	})}
	go func() { _ = server.Serve(ln) }()
	return ln.Addr().String(), func() { _ = server.Close() }, nil
}

// walk follows a path of field numbers to its ends.
func walk(b []byte, path []protowire.Number, f func([]byte)) error {
	if len(path) == 0 {
		f(b)
		return nil
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, kind, b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if number == path[0] && kind == protowire.BytesType {
			part, _ := protowire.ConsumeBytes(b)
			if err := walk(part, path[1:], f); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}
