package container

import (
	"strings"
	"time"
)

// Small readings that several sources share.

// podOf reads the labels that kubelet puts on every container it makes.
func podOf(labels map[string]string) Pod {
	return Pod{
		Namespace: labels["io.kubernetes.pod.namespace"],
		Name:      labels["io.kubernetes.pod.name"],
		UID:       labels["io.kubernetes.pod.uid"],
		Container: labels["io.kubernetes.container.name"],
	}
}

// cpus turns a quota per period, both in microseconds, into processors; no quota is none.
func cpus(quota, period int64) float64 {
	if quota <= 0 {
		return 0
	}
	if period <= 0 {
		period = 100_000 // the kernel's default
	}
	return float64(quota) / float64(period)
}

// known gives the zero Time for the dates by which runtimes say "never".
func known(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t
}

func splitPaths(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ":")
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
