package main

import (
	"flag"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/cadvisor/lib/cache/memory"
	cadvisorcontainer "github.com/google/cadvisor/lib/container"
	_ "github.com/google/cadvisor/lib/container/containerd/install" // its way of registering
	"github.com/google/cadvisor/lib/manager"
	collector "github.com/google/cadvisor/lib/metrics"
	"github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

// compared is the set of cAdvisor's metrics that is compared: what we read by default too.
var compared = cadvisorcontainer.MetricSet{
	cadvisorcontainer.CpuUsageMetrics:     {},
	cadvisorcontainer.MemoryUsageMetrics:  {},
	cadvisorcontainer.DiskIOMetrics:       {},
	cadvisorcontainer.NetworkUsageMetrics: {},
	cadvisorcontainer.ProcessMetrics:      {},
	cadvisorcontainer.HugetlbUsageMetrics: {},
	cadvisorcontainer.CPUSetMetrics:       {},
	cadvisorcontainer.OOMMetrics:          {},
	cadvisorcontainer.PressureMetrics:     {},
}

// cadvisor is cAdvisor's manager and its Prometheus collector, as its program and the kubelet put them together.
func cadvisor(containerd string) (http.Handler, error) {
	never := time.Hour // no housekeeping in between: each scrape asks for what is true now
	for name, value := range map[string]string{
		"containerd": containerd, "containerd-namespace": namespace,
		"housekeeping_interval": never.String(), "global_housekeeping_interval": never.String(),
	} {
		if err := flag.Set(name, value); err != nil {
			return nil, fmt.Errorf("set cadvisor's flag %s: %w", name, err)
		}
	}
	dynamic := false
	m, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfig{Interval: &never, AllowDynamic: &dynamic}, compared, nil, nil, "", 0)
	if err != nil {
		return nil, fmt.Errorf("make cadvisor's manager: %w", err)
	}
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("start cadvisor's manager: %w", err)
	}
	fresh := time.Duration(0)
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector.NewPrometheusCollector(m, collector.BaseContainerLabels(nil), compared, clock.RealClock{},
			model.RequestOptions{IdType: model.TypeName, Count: 1, Recursive: true, MaxAge: &fresh}),
		collector.NewPrometheusMachineCollector(m, compared),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}), nil
}

// libraryVersion is that of the library in this binary.
func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/google/cadvisor/lib" {
				return m.Version
			}
		}
	}
	return "unknown"
}
