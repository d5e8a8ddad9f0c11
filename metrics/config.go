package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/metrics/history"
)

// Config is the section "metrics" of the configuration file.
type Config struct {
	// Timeout bounds one scrape: a container that could not be read by then is left out and counted in
	// fairlead_metrics_left_out_total. It belongs below the scraper's own timeout. Between 10ms and 1m; default 5s.
	Timeout time.Duration `yaml:"timeout" doc:"bound of one scrape, 10ms to 1m; what could not be read by then is left out and counted"`
	// Aggregates adds the root cgroup, as id="/", and the cgroup of each pod, as cAdvisor and the kubelet do. Default true.
	Aggregates bool `yaml:"aggregates" doc:"also the root cgroup (id=\"/\") and each pod's own cgroup"`
	// KeepEnded is for how long the last sample of a container that ended stays on the page, as container_ended_*. 0 keeps
	// none. Default 5m.
	KeepEnded time.Duration `yaml:"keep_ended" doc:"how long the last sample of a container that ended is shown, as container_ended_*; 0 keeps none"`
	// Created adds to each counter, in OpenMetrics only, the time since when it counts, as a series of its own that ends in
	// _created. Scrapers that know nothing of them, Prometheus without its feature flag among them, store each as one more
	// series, which doubles those of counters; so it is asked for. Default false.
	Created bool `yaml:"created" doc:"in OpenMetrics, also since when each counter counts, as NAME_created; doubles the series of counters"`
	// Exclude names groups of metrics that are left out; Groups gives those that there are.
	Exclude []string `yaml:"exclude" doc:"groups of metrics to leave out: life, cpu, cpuset, memory, oom, process, pressure, io, hugetlb, network, ended, advice, machine"`
	// Also names groups that cost more and are therefore left out unless they are named here: numa, sockets, disk.
	Also []string `yaml:"also" doc:"groups of metrics that cost more and are shown only when named here: numa, sockets, disk"`
	// DiskEvery is how often the trees of the group disk are walked in the background. Between 1m and 24h; default 15m.
	DiskEvery time.Duration `yaml:"disk_every" doc:"how often writable layers and volumes are walked in the background when the group disk is on, 1m to 24h"`
	// Only keeps those containers that have all of these labels; an empty value means that the label is there. Skip leaves
	// those out that have any. Labels are the runtime's.
	Only map[string]string `yaml:"only" doc:"only containers with all of these labels; an empty value: whatever its value is"`
	Skip map[string]string `yaml:"skip" doc:"no containers with any of these labels"`
	// Services are systemd's services that are measured beside the containers, by globs of their units' names. Default none.
	Services []string `yaml:"services" doc:"systemd services to measure too, by globs of their names, such as [\"*.service\"]; their id is the cgroup"`
	// SeriesPerContainer and Series bound the page; what is beyond is dropped and counted exactly in
	// fairlead_metrics_series_dropped_total. 0 is no bound. Default 1000 and 0.
	SeriesPerContainer int `yaml:"series_per_container" doc:"most series of one container, 0 is no bound; what is beyond is dropped and counted"`
	Series             int `yaml:"series" doc:"most series of all containers together, 0 is no bound; what is beyond is dropped and counted"`
	// History remembers what containers used, for `fairlead advise` and `fairlead usage`.
	History history.Config `yaml:"history" doc:"what is remembered of the use, for fairlead advise and fairlead usage"`
}

// DefaultConfig gives the configuration without a file.
func DefaultConfig() Config {
	return Config{Timeout: 5 * time.Second, Aggregates: true, KeepEnded: 5 * time.Minute, DiskEvery: 15 * time.Minute, SeriesPerContainer: 1000, History: history.DefaultConfig()}
}

// onRequest are the groups that are left out unless Also names them.
var onRequest = []string{"numa", "sockets", "disk"}

// excluded gives the groups that are left out.
func (c Config) excluded() []string {
	out := slices.Clone(c.Exclude)
	for _, group := range onRequest {
		if !slices.Contains(c.Also, group) {
			out = append(out, group)
		}
	}
	return out
}

// Validate names every problem with its key.
func (c Config) Validate() error {
	var errs []error
	known := Groups()
	for i, group := range c.Exclude {
		if !slices.Contains(known, group) {
			errs = append(errs, fmt.Errorf("metrics.exclude[%d]: %q is not one of %s", i, group, strings.Join(known, ", ")))
		}
	}
	for i, group := range c.Also {
		if !slices.Contains(onRequest, group) {
			errs = append(errs, fmt.Errorf("metrics.also[%d]: %q is not one of %s", i, group, strings.Join(onRequest, ", ")))
		}
	}
	for i, pattern := range c.Services {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			errs = append(errs, fmt.Errorf("metrics.services[%d]: %q is no glob of a unit's name, such as nginx.service or *.service", i, pattern))
		}
	}
	for key, n := range map[string]int{"series_per_container": c.SeriesPerContainer, "series": c.Series} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("metrics.%s: %d is negative; 0 is no bound", key, n))
		}
	}
	if c.KeepEnded < 0 || c.KeepEnded > 24*time.Hour {
		errs = append(errs, fmt.Errorf("metrics.keep_ended: %s is not between 0 and 24h", c.KeepEnded))
	}
	if err := c.History.Validate(); err != nil {
		errs = append(errs, err)
	}
	if slices.Contains(c.Also, "disk") && (c.DiskEvery < time.Minute || c.DiskEvery > 24*time.Hour) {
		errs = append(errs, fmt.Errorf("metrics.disk_every: %s is not between 1m and 24h", c.DiskEvery))
	}
	const least, most = 10 * time.Millisecond, time.Minute
	if c.Timeout < least || c.Timeout > most {
		errs = append(errs, fmt.Errorf("metrics.timeout: %s is not between %s and %s", c.Timeout, least, most))
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
