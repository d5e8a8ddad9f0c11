package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/logship/decode"
)

// result is the last line of the output. A ratio is how many times better we are.
type result struct {
	Bench   string            `json:"bench"`
	Peers   map[string]string `json:"peers"`
	CRI     *float64          `json:"cri_loki_mb_per_cpu_s"`
	CRIOver *float64          `json:"cri_ratio"`
	Filelog *float64          `json:"otel_filelog_mb_per_cpu_s"`
	Docker  *float64          `json:"docker_mb_per_cpu_s"`
	Parse   *float64          `json:"parse_mb_per_cpu_s"`
	Syslog  *float64          `json:"syslog_mb_per_cpu_s"`
	Peer    *float64          `json:"rsyslog_mb_per_cpu_s"`
	Over    *float64          `json:"syslog_ratio"`
	Idle    *float64          `json:"idle500_cpu_percent"`
	P50     *float64          `json:"latency_p50_ms"`
	P99     *float64          `json:"latency_p99_ms"`
	RSS     *float64          `json:"rss_mib_over_idle"`
	Lost    int               `json:"lost"`
	Doubled int               `json:"doubled"`
	Notes   []string          `json:"notes,omitempty"`
}

func num(f float64) *float64 {
	f = math.Round(f*1000) / 1000
	return &f
}

type bench struct {
	ctx   context.Context
	dir   string
	lines int
	seed  uint64
	r     result
	rss   float64
}

func measure(ctx context.Context, seed uint64, short bool, profile string) (result, error) {
	dir, err := os.MkdirTemp("/tmp", "fairlead-bench-logs-")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, dir: dir, lines: 4_000_000, seed: seed, r: result{Bench: "logs", Peers: map[string]string{}}}
	rounds, idle, latency := 3, 60*time.Second, 1000 // idle holds whole periods of ten seconds, after which files are looked for
	if short {
		b.lines, rounds, idle, latency = 800_000, 1, 20*time.Second, 200
	}
	resting, err := b.rest()
	if err != nil {
		return b.r, fmt.Errorf("idle: %w", err)
	}
	defer resting.stop()
	rested := time.Now().Add(35 * time.Second)
	b.note("syslog_ratio is against rsyslog imfile, which decodes nothing")
	cri, docker := filepath.Join(dir, "cri.log"), filepath.Join(dir, "docker.log")
	criSize, err := write(cri, seed, b.lines, criFrame)
	if err != nil {
		return b.r, err
	}
	dockerSize, err := write(docker, seed, b.lines, dockerFrame)
	if err != nil {
		return b.r, err
	}
	sample := make([]byte, 8<<20)
	if f, err := os.Open(cri); err == nil {
		n, _ := f.Read(sample)
		sample = sample[:n]
		f.Close()
	}
	fmt.Printf("corpus: seed %d, %d lines, %d bytes each as CRI, snappy ratio %.1f\n", seed, b.lines, criSize/int64(b.lines), float64(len(sample))/float64(len(s2.EncodeSnappy(nil, sample))))
	b.r.Parse = num(b.parse(sample))

	var loki, dock, ours, peer []float64
	for range rounds {
		v, err := b.loki(cri, container.CRI, criSize, profile)
		if err != nil {
			return b.r, fmt.Errorf("cri to loki: %w", err)
		}
		loki = append(loki, v)
		if v, err = b.loki(docker, container.DockerJSON, dockerSize, dockerProfile(profile)); err != nil {
			return b.r, fmt.Errorf("docker to loki: %w", err)
		}
		dock = append(dock, v)
		if v, err = b.syslog(cri, criSize); err != nil {
			return b.r, fmt.Errorf("cri to syslog: %w", err)
		}
		ours = append(ours, v)
		if v, err = b.rsyslog(cri, criSize); err != nil {
			b.note("rsyslog: " + err.Error())
			continue
		}
		peer = append(peer, v)
	}
	b.r.CRI, b.r.Docker, b.r.Syslog = num(median(loki)), num(median(dock)), num(median(ours))
	if len(peer) > 0 {
		b.r.Peer, b.r.Over = num(median(peer)), num(median(ours)/median(peer))
	}
	if filelog, err := b.collector(); err != nil {
		b.note("cri_ratio: opentelemetry: " + err.Error())
	} else {
		b.r.Filelog, b.r.CRIOver = num(filelog), num(median(loki)/filelog)
		fmt.Printf("MB per CPU-second: OpenTelemetry filelog, CRI to OTLP %.1f\n", filelog)
	}
	b.r.RSS = num(b.rss)
	fmt.Printf("MB per CPU-second: CRI to Loki %.0f, docker to Loki %.0f, CRI to syslog %.0f, rsyslog imfile to syslog %.1f, parse only %.0f\n", median(loki), median(dock), median(ours), median(peer), *b.r.Parse)
	time.Sleep(time.Until(rested))
	before := resting.fine()
	time.Sleep(idle)
	b.r.Idle = num(float64(resting.fine()-before) / float64(idle) * 100)
	if err := b.latency(latency); err != nil {
		return b.r, fmt.Errorf("latency: %w", err)
	}
	return b.r, nil
}

func (b *bench) note(text string) { b.r.Notes = append(b.r.Notes, text) }

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// parse decodes lines that lie in memory, and does nothing with them.
func (b *bench) parse(sample []byte) float64 {
	d := decode.New(container.CRI, decode.MaxLine)
	var arena decode.Arena
	var before, after syscall.Rusage
	total := 0
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for range 64 {
		for rest := sample; ; {
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				break
			}
			d.Next(rest[:n], decode.Mark{}, &arena)
			rest = rest[n+1:]
		}
		total += len(sample)
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
	return float64(total) / 1e6 / cpu.Seconds()
}

// dockerProfile is the file beside that of CRI.
func dockerProfile(profile string) string {
	if profile == "" {
		return ""
	}
	return profile + ".docker"
}

// room is a fresh directory for one run.
func (b *bench) room() (string, error) { return os.MkdirTemp(b.dir, "run-") }

func labelled(path string, format container.LogFormat) []container.Container {
	return []container.Container{{ID: "c0ffee", Name: "shop", Runtime: "bench", Image: "shop:1", State: container.Running,
		Labels: map[string]string{"tier": "front"}, Log: container.Log{Path: path, Format: format}}}
}

func (b *bench) loki(path string, format container.LogFormat, size int64, profile string) (float64, error) {
	t := newTally(b.lines)
	addr, stop, err := lokiServer(t.add)
	if err != nil {
		return 0, err
	}
	defer stop()
	return b.ours(path, format, size, logship.SinkConfig{Name: "s", Type: "loki", URL: "http://" + addr}, t, profile)
}

func (b *bench) syslog(path string, size int64) (float64, error) {
	t := newTally(b.lines)
	addr, stop, err := lineServer(true, t.add)
	if err != nil {
		return 0, err
	}
	defer stop()
	return b.ours(path, container.CRI, size, logship.SinkConfig{Name: "s", Type: "syslog", Address: "tcp://" + addr}, t, "")
}

// ours ships one file and gives MB per CPU-second.
func (b *bench) ours(path string, format container.LogFormat, size int64, s logship.SinkConfig, t *tally, profile string) (float64, error) {
	dir, err := b.room()
	if err != nil {
		return 0, err
	}
	log := filepath.Join(dir, "log/c.log")
	if err := os.Mkdir(filepath.Dir(log), 0o755); err != nil {
		return 0, err
	}
	p, err := startShip(job{Dir: dir, Config: logship.Config{Sinks: []logship.SinkConfig{s}}, Containers: labelled(log, format), Profile: profile})
	if err != nil {
		return 0, err
	}
	defer p.stop()
	v, err := b.run(p, func() error { return os.Rename(path, log) }, t, size)
	b.rss = max(b.rss, float64(p.status("VmHWM:")-p.idle)/(1<<20))
	b.r.Lost += t.lost()
	b.r.Doubled += t.doubled
	return v, errors.Join(err, os.Rename(log, path))
}

func (b *bench) run(p *process, begin func() error, t *tally, size int64) (float64, error) {
	before, err := p.cpu()
	if err == nil {
		err = begin()
	}
	if err != nil {
		return 0, err
	}
	select {
	case <-t.done:
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(10 * time.Minute):
		return 0, fmt.Errorf("%d lines have not arrived", t.lost())
	}
	after, err := p.cpu()
	if t.bad > 0 {
		err = errors.Join(err, fmt.Errorf("%d lines arrived damaged", t.bad))
	}
	return float64(size) / 1e6 / (after - before).Seconds(), err
}

func (b *bench) rsyslog(path string, size int64) (float64, error) {
	t := newTally(b.lines)
	addr, stop, err := lineServer(false, t.add)
	if err != nil {
		return 0, err
	}
	defer stop()
	dir, err := b.room()
	if err != nil {
		return 0, err
	}
	host, port, _ := strings.Cut(addr, ":")
	conf, log := filepath.Join(dir, "conf"), filepath.Join(dir, "c.log")
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="64k")
module(load="imfile")
input(type="imfile" file=%q tag="c" ruleset="out")
ruleset(name="out" queue.type="LinkedList" queue.size="50000") {
  action(type="omfwd" target=%q port=%q protocol="tcp" template="RSYSLOG_SyslogProtocol23Format")
}
`, dir, log, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return 0, err
	}
	version, err := exec.Command("rsyslogd", "-v").Output()
	if err != nil {
		return 0, err
	}
	if f := strings.Fields(string(version)); len(f) > 1 {
		b.r.Peers["rsyslog imfile"] = f[1]
	}
	p, err := start(exec.Command("rsyslogd", "-n", "-f", conf, "-i", filepath.Join(dir, "pid")))
	if err != nil {
		return 0, err
	}
	defer p.stop()
	v, err := b.run(p, func() error { return os.Rename(path, log) }, t, size)
	return v, errors.Join(err, os.Rename(log, path))
}

// rest follows 500 files that nobody writes to.
func (b *bench) rest() (*process, error) {
	dir, err := b.room()
	if err != nil {
		return nil, err
	}
	for i := range 500 {
		if err := os.WriteFile(filepath.Join(dir, "f"+strconv.Itoa(i)+".log"), []byte("a line\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return startShip(job{Dir: dir, Config: logship.Config{Files: []logship.File{{Path: dir + "/*.log"}},
		Sinks: []logship.SinkConfig{{Name: "s", Type: "file", Path: filepath.Join(dir, "out/copy")}}}})
}

// latency writes one line after the other and takes the time until each arrives.
func (b *bench) latency(n int) error {
	sent := make([]time.Time, n)
	var mu sync.Mutex
	var took []float64
	t := newTally(n)
	addr, stop, err := lineServer(true, func(line []byte) {
		now := time.Now()
		if k, ok := number(line); ok && k < n {
			mu.Lock()
			took = append(took, float64(now.Sub(sent[k]).Microseconds())/1000)
			mu.Unlock()
		}
		t.add(line)
	})
	if err != nil {
		return err
	}
	defer stop()
	dir, err := b.room()
	if err != nil {
		return err
	}
	log := filepath.Join(dir, "c.log")
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := startShip(job{Dir: dir, Config: logship.Config{Sinks: []logship.SinkConfig{{Name: "s", Type: "syslog", Address: "tcp://" + addr}}}, Containers: labelled(log, container.CRI)})
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := write(filepath.Join(dir, "lines"), b.seed, n, criFrame); err != nil {
		return err
	}
	all, err := os.ReadFile(filepath.Join(dir, "lines"))
	if err != nil {
		return err
	}
	k := 0
	for line := range bytes.Lines(all) {
		mu.Lock()
		sent[k] = time.Now()
		mu.Unlock()
		if _, err := f.Write(line); err != nil {
			return err
		}
		k++
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case <-t.done:
	case <-time.After(10 * time.Second):
	}
	b.r.Lost += t.lost()
	b.r.Doubled += t.doubled
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	if len(took) > 0 {
		b.r.P50, b.r.P99 = num(took[len(took)/2]), num(took[len(took)*99/100])
	}
	return nil
}
