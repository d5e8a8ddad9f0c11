package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// server is a process of its own that is scraped.
type server struct {
	kind   string
	cmd    *exec.Cmd
	client *http.Client
	ended  bool
}

func (w *world) serve(ctx context.Context, kind string, n int) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(w.dir, kind+strconv.Itoa(n)+".sock")
	cmd := exec.Command(self, "-serve", kind, "-socket", socket, "-bench-containerd", w.containerd.Address, "-n", strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = dieWithParent
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{kind: kind, cmd: cmd, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	w.servers = append(w.servers, s)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err = s.spent(ctx); err == nil {
			return s, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
	}
}

func (s *server) stop() error {
	if s.ended {
		return nil
	}
	s.ended = true
	_ = s.cmd.Process.Signal(os.Interrupt)
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("end %s: %w", s.kind, err)
	}
	return nil
}

func (s *server) spent(ctx context.Context) (spent, error) {
	var out spent
	body, _, err := s.get(ctx, "/spent")
	if err == nil {
		err = json.Unmarshal(body, &out)
	}
	return out, err
}

// scrape asks for the page as Prometheus does and tells how long the answer took, not its unpacking.
func (s *server) scrape(ctx context.Context) (page []byte, took time.Duration, err error) {
	body, took, err := s.get(ctx, "/metrics")
	if err != nil {
		return nil, 0, err
	}
	z, err := gzip.NewReader(strings.NewReader(string(body)))
	if err == nil {
		page, err = io.ReadAll(z)
	}
	return page, took, err
}

func (s *server) get(ctx context.Context, path string) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bench"+path, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	began := time.Now()
	res, err := s.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status + ": " + string(body))
	}
	return body, time.Since(began), err
}

// idle is what s spends in d while nobody asks it for anything.
func (s *server) idle(ctx context.Context, d time.Duration) (percent float64, err error) {
	before, err := s.spent(ctx)
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	after, err := s.spent(ctx)
	empty, err2 := s.spent(ctx) // what asking costs
	if err = errors.Join(err, err2); err != nil {
		return 0, err
	}
	return round(100*float64(max(0, after.CPU-before.CPU-(empty.CPU-after.CPU)))/float64(d), 2), nil
}

// sees waits until every container is on the page of s, with its network.
func (w *world) sees(ctx context.Context, s *server) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		page, _, err := s.scrape(ctx)
		if err != nil {
			return fmt.Errorf("scrape %s: %w", s.kind, err)
		}
		if missing := w.missing(page); len(missing) == 0 {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("%s does not show %d of %d containers, such as %s", s.kind, len(missing), len(w.ids), missing[0])
		}
	}
}

func (w *world) missing(page []byte) []string {
	seen := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "container_network_receive_bytes_total{") {
			seen[idOf(line)] = true
		}
	}
	var missing []string
	for _, id := range w.ids {
		if !seen[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// idOf gives the last element of a series's id label: the container's own id.
func idOf(line string) string {
	_, rest, _ := strings.Cut(line, `id="`)
	path, _, _ := strings.Cut(rest, `"`)
	return filepath.Base(path)
}

// perContainer counts the series of the containers, and leaves the machine's and other cgroups' out.
func (w *world) perContainer(page []byte) float64 {
	ours := map[string]bool{}
	for _, id := range w.ids {
		ours[id] = true
	}
	n := 0
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "container_") && ours[idOf(line)] {
			n++
		}
	}
	return round(float64(n)/float64(len(w.ids)), 1)
}

// measure scrapes both turn by turn. What a process spends is all that it spends from its first scrape to the end, so its
// garbage collection, and what it does while the other is scraped, is in it.
func (w *world) measure(ctx context.Context, ours, peer *server, rounds, each int, out *result) error {
	type side struct {
		*server
		each  int
		took  []time.Duration
		first spent
		cpu   int64
		pages int
		last  []byte
	}
	sides := []*side{{server: ours, each: each}, {server: peer, each: 1}}
	for _, s := range sides {
		var err error
		if s.first, err = s.spent(ctx); err != nil {
			return err
		}
	}
	for range rounds {
		for _, s := range sides {
			for range s.each {
				page, took, err := s.scrape(ctx)
				if err != nil {
					return fmt.Errorf("scrape %s: %w", s.kind, err)
				}
				s.took, s.last, s.pages = append(s.took, took), page, s.pages+1
			}
		}
	}
	for _, s := range sides {
		after, err := s.spent(ctx)
		if err != nil {
			return err
		}
		s.cpu = after.CPU - s.first.CPU
		if missing := w.missing(s.last); len(missing) > 0 {
			return fmt.Errorf("%s has lost %d containers", s.kind, len(missing))
		}
		slices.Sort(s.took)
		fmt.Printf("%-8s %d scrapes: %.1f us CPU a container, p50 %.1f ms, p99 %.1f ms, %.1f series a container, page %d KiB\n", s.kind,
			s.pages, perContainer(s.cpu, s.pages, len(w.ids)), ms(s.took, 50), ms(s.took, 99), w.perContainer(s.last), len(s.last)>>10)
	}
	a, b := sides[0], sides[1]
	out.CPUPerContainer, out.CPUPerContainerPeer = round(perContainer(a.cpu, a.pages, len(w.ids)), 1), round(perContainer(b.cpu, b.pages, len(w.ids)), 1)
	out.CPURatio = round(out.CPUPerContainerPeer/out.CPUPerContainer, 1)
	out.ScrapeP50, out.ScrapeP99, out.ScrapeP50Peer = ms(a.took, 50), ms(a.took, 99), ms(b.took, 50)
	out.SeriesPerContainer, out.SeriesPerContainerPeer = w.perContainer(a.last), w.perContainer(b.last)
	return nil
}

// growth compares what one container costs among 1,000 with what it costs among 10. What a page without containers costs is
// measured by itself and taken off both.
func (w *world) growth(ctx context.Context, out *result) error {
	const few, many = 10, 1000
	if err := w.makeCgroups(many); err != nil {
		return err
	}
	page := map[int]float64{} // microseconds
	for _, n := range []int{0, few, many} {
		s, err := w.serve(ctx, "growth", n)
		if err != nil {
			return err
		}
		for range 20 { // opens the files, and warms what a scraper of every day finds warm
			if _, _, err := s.scrape(ctx); err != nil {
				return err
			}
		}
		scrapes := 20 * many / max(n, few)
		before, err := s.spent(ctx)
		if err != nil {
			return err
		}
		for range scrapes {
			if _, _, err := s.scrape(ctx); err != nil {
				return err
			}
		}
		after, err := s.spent(ctx)
		if err == nil && n == many {
			out.IdleCPUPercentPart, err = s.idle(ctx, 10*time.Second)
		}
		if err = errors.Join(err, s.stop()); err != nil {
			return err
		}
		page[n] = float64(after.CPU-before.CPU) / 1e3 / float64(scrapes)
		fmt.Printf("%d cgroups: %.0f us CPU a page\n", n, page[n])
	}
	each := func(n int) float64 { return (page[n] - page[0]) / float64(n) }
	fmt.Printf("that is %.0f us for the page, and %.1f us each of %d, %.1f us each of %d\n", page[0], each(few), few, each(many), many)
	g := round(each(many)/each(few), 2)
	out.Growth, out.CPUPerPage = &g, round(page[0], 0)
	out.Notes = append(out.Notes, "growth_1000 is measured on 1,000 and on 10 real cgroups without processes, less cpu_us_per_page, which a page without containers costs",
		"idle_cpu_percent is the whole agent's with its inventory, which asks the runtime whether it lives; idle_cpu_percent_part that of the metrics alone, with 1,000 cgroups open")
	return nil
}

func perContainer(cpu int64, scrapes, containers int) float64 {
	return float64(cpu) / 1e3 / float64(scrapes) / float64(containers)
}

func ms(sorted []time.Duration, percent int) float64 {
	return round(float64(sorted[(len(sorted)-1)*percent/100])/1e6, 2)
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}
