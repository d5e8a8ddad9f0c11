// Command metrics measures what a scrape costs: ours beside cAdvisor's own library, each a process of its own, on the same
// real runc containers, turn by turn. `make bench-metrics` runs it; SHORT=1 is the bounded run of CI. It needs root,
// works with a containerd of its own and leaves nothing.
//
// Both read every value anew at each scrape. For cAdvisor that is max_age=0, with its housekeeping between scrapes
// switched off, which is the cheapest way in which it can give fresh values. Both answer with gzip.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// result is the last line that is printed.
type result struct {
	Bench                  string            `json:"bench"`
	Peers                  map[string]string `json:"peers"`
	Containers             int               `json:"containers"`
	CPUPerContainer        float64           `json:"cpu_us_per_container"`
	CPUPerContainerPeer    float64           `json:"cpu_us_per_container_peer"`
	CPURatio               float64           `json:"cpu_ratio"`
	ScrapeP50              float64           `json:"scrape_p50_ms"`
	ScrapeP99              float64           `json:"scrape_p99_ms"`
	ScrapeP50Peer          float64           `json:"scrape_p50_ms_peer"`
	SeriesPerContainer     float64           `json:"series_per_container"`
	SeriesPerContainerPeer float64           `json:"series_per_container_peer"`
	RSSOverIdle            float64           `json:"rss_mib_over_idle"`
	RSSOverIdlePeer        float64           `json:"rss_mib_over_idle_peer"`
	RSSOverUnscraped       float64           `json:"rss_mib_over_unscraped"`
	IdleCPUPercent         float64           `json:"idle_cpu_percent"`
	IdleCPUPercentPart     float64           `json:"idle_cpu_percent_part"`
	CPUPerPage             float64           `json:"cpu_us_per_page"`
	Growth                 *float64          `json:"growth_1000"`
	Notes                  []string          `json:"notes,omitempty"`
}

func main() {
	short := flag.Bool("short", os.Getenv("SHORT") == "1", "a run of about a minute")
	n := flag.Int("n", 0, "containers; 0 is 500, or 40 with -short")
	serve := flag.String("serve", "", "internal: be the process that is scraped: ours, cadvisor or growth")
	socket := flag.String("socket", "", "internal: where it listens")
	containerd := flag.String("bench-containerd", "", "internal: the socket of containerd")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var err error
	switch {
	case *serve != "":
		err = child(ctx, *serve, *socket, *containerd, *n)
	default:
		if *n == 0 {
			*n = 500
			if *short {
				*n = 40
			}
		}
		err = bench(ctx, *n, *short)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-metrics:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, n int, short bool) (err error) {
	out := result{Bench: "metrics", Containers: n, Peers: map[string]string{"cadvisor": libraryVersion()}}
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if e := w.close(); err == nil {
			err = e
		}
	}()
	ours, err := w.serve(ctx, "ours", 0)
	if err != nil {
		return err
	}
	idle, err := ours.spent(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("starting %d containers ...\n", n)
	began := time.Now()
	if err := w.containers(ctx, n); err != nil {
		return err
	}
	fmt.Printf("%d containers run after %.1f s, %d of them busy\n", n, time.Since(began).Seconds(), w.busy)

	unscraped, err := ours.spent(ctx)
	if err != nil {
		return err
	}
	peer, err := w.serve(ctx, "cadvisor", 0)
	if err != nil {
		return err
	}
	idlePeer, err := peer.spent(ctx)
	if err != nil {
		return err
	}
	for _, s := range []*server{ours, peer} {
		if err := w.sees(ctx, s); err != nil {
			return err
		}
	}

	rounds, each := 40, 5 // scrapes of ours in each round, beside one of the peer
	if short {
		rounds = 10
	}
	if err := w.measure(ctx, ours, peer, rounds, each, &out); err != nil {
		return err
	}
	after, err := ours.spent(ctx)
	if err != nil {
		return err
	}
	afterPeer, err := peer.spent(ctx)
	if err != nil {
		return err
	}
	out.RSSOverIdle = round(float64(after.RSS-idle.RSS)/(1<<20), 1)
	out.RSSOverIdlePeer = round(float64(afterPeer.RSS-idlePeer.RSS)/(1<<20), 1)
	out.RSSOverUnscraped = round(float64(after.RSS-unscraped.RSS)/(1<<20), 1)
	fmt.Printf("RSS of ours: %d MiB idle, %d MiB following %d containers, %d MiB after the scrapes, %d MiB of that code and other files\n",
		idle.RSS>>20, unscraped.RSS>>20, n, after.RSS>>20, after.Files>>20)
	out.Notes = append(out.Notes, "rss_mib_over_idle begins without a container, so it is the inventory's too; rss_mib_over_unscraped begins with all of them followed", "cadvisor's idle RSS is read with the containers there already: it finds them as it starts")
	if err := peer.stop(); err != nil {
		return err
	}
	idleFor := time.Minute // the inventory lists all containers once in that time
	if short {
		idleFor = 5 * time.Second
	}
	if out.IdleCPUPercent, err = ours.idle(ctx, idleFor); err != nil {
		return err
	}
	if err := ours.stop(); err != nil {
		return err
	}
	if err := w.growth(ctx, &out); err != nil {
		return err
	}
	line, err := json.Marshal(out)
	if err != nil {
		return err
	}
	defer fmt.Println(string(line))
	if out.SeriesPerContainer < out.SeriesPerContainerPeer {
		return fmt.Errorf("not a comparison: %v series a container, the peer has %v", out.SeriesPerContainer, out.SeriesPerContainerPeer)
	}
	return nil
}
