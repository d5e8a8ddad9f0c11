package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// scrape lets a container burn a known amount of CPU and hold a known amount of memory, and looks for both, and for
// the limits that it was started with, in what a scrape of /metrics says.
func (d *Demo) scrape(ctx context.Context) (string, error) {
	c := d.nodes[0].containers[0]
	before, err := c.samples(ctx)
	if err != nil {
		return "", err
	}
	const held = 32 << 20
	if _, err := c.exec(ctx, "dd", "if=/dev/zero", "of=/dev/shm/held", "bs=1048576", fmt.Sprint("count=", held>>20)); err != nil {
		return "", err
	}
	var burnt struct {
		Seconds float64 `json:"cpu_seconds"`
	}
	if err := c.report(ctx, &burnt, "burn", "3s"); err != nil {
		return "", err
	}
	after, err := c.samples(ctx)
	if err != nil {
		return "", err
	}
	if _, err := c.exec(ctx, "rm", "/dev/shm/held"); err != nil {
		return "", err
	}
	// Starting a process in a container costs it some 10 ms of CPU and the page cache of what it reads.
	cpu := after["container_cpu_usage_seconds_total"] - before["container_cpu_usage_seconds_total"]
	if off := cpu/burnt.Seconds - 1; math.Abs(off) > 0.05 {
		return "", fmt.Errorf("%s burnt %.3f s of CPU, but the scrape says %.3f s", c, burnt.Seconds, cpu)
	}
	memory := after["container_memory_working_set_bytes"] - before["container_memory_working_set_bytes"]
	if math.Abs(memory-held) > 4<<20 {
		return "", fmt.Errorf("%s holds 32 MiB more, but its working set in the scrape grew by %.1f MiB", c, memory/(1<<20))
	}
	for metric, want := range map[string]float64{
		"container_spec_memory_limit_bytes": memoryLimit,
		"container_spec_cpu_quota":          cpuQuota,
		"container_spec_cpu_period":         cpuPeriod,
	} {
		if got := after[metric]; got != want {
			return "", fmt.Errorf("%s: %s is %v, want %v", c, metric, got, want)
		}
	}
	return fmt.Sprintf("%s burnt %.2f s of CPU, /metrics says %.2f s; it held 32 MiB more, /metrics says %.1f MiB;\nlimits as given: %d MiB, %.1f CPUs",
		c, burnt.Seconds, cpu, memory/(1<<20), memoryLimit>>20, float64(cpuQuota)/cpuPeriod), nil
}

// samples scrapes the agent and gives the container's samples by metric name, summed over their other labels. The
// label "id" has the cgroup's path, as cAdvisor's has.
func (c *Container) samples(ctx context.Context) (map[string]float64, error) {
	text, err := c.node.Run(ctx, "curl", "-sS", "--fail", "http://127.0.0.1:9478/metrics")
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("id=%q", c.node.Cgroup+"/"+c.ID)
	samples := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), "{")
		labels, value, ok2 := strings.Cut(rest, "} ")
		if !ok || !ok2 || !strings.Contains(labels, id) {
			continue
		}
		value, _, _ = strings.Cut(value, " ") // a timestamp may follow
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("scrape: %s: %w", lines.Text(), err)
		}
		samples[name] += v
	}
	if len(samples) == 0 {
		return nil, fmt.Errorf("scrape of %s has no sample with %s", c.node.Name, id)
	}
	return samples, nil
}
