package metrics

import (
	"context"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/diskuse"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// diskMetric has one series for the writable layer of each container, or one for each of its volumes.
type diskMetric struct {
	Metric
	volumes bool
	value   func(p *page, e *diskuse.Estimate) cgroup.Value
}

var diskMetrics = []diskMetric{
	perTree(false, "container_fs_usage_bytes", "bytes", "Bytes that the container's writable layer takes on disk",
		func(_ *page, e *diskuse.Estimate) cgroup.Value { return cgroup.Known(e.Bytes) }),
	perTree(false, "container_fs_usage_inodes", "", "Files of all kinds in the container's writable layer",
		inodes),
	perTree(false, "container_fs_limit_bytes", "bytes", "Size of the file system that the writable layer is on",
		func(_ *page, e *diskuse.Estimate) cgroup.Value { return cgroup.Known(e.TotalBytes) }),
	perTree(false, "container_fs_inodes_total", "", "Inodes of the file system that the writable layer is on; absent where it counts none",
		func(_ *page, e *diskuse.Estimate) cgroup.Value {
			return cgroup.Value{N: e.TotalInodes, Known: e.TotalInodes > 0}
		}),
	perTree(false, "container_fs_inodes_free", "", "Free inodes of that file system; absent where it counts none",
		func(_ *page, e *diskuse.Estimate) cgroup.Value {
			return cgroup.Value{N: e.FreeInodes, Known: e.TotalInodes > 0}
		}),
	perTree(false, "container_fs_usage_age_seconds", "seconds", "How old the estimate of the writable layer is", age),
	perTree(true, "container_volume_usage_bytes", "bytes", "Bytes that what is mounted at this destination takes on disk",
		func(_ *page, e *diskuse.Estimate) cgroup.Value { return cgroup.Known(e.Bytes) }),
	perTree(true, "container_volume_usage_inodes", "", "Files of all kinds in what is mounted at this destination",
		inodes),
	perTree(true, "container_volume_usage_age_seconds", "seconds", "How old the estimate of this mount is", age),
}

func inodes(_ *page, e *diskuse.Estimate) cgroup.Value {
	return cgroup.Value{N: e.Inodes, Known: e.Inodes > 0}
}

func age(p *page, e *diskuse.Estimate) cgroup.Value {
	return cgroup.Known(uint64(max(0, p.at.Sub(e.At)) / time.Second))
}

func perTree(volumes bool, name, unit, what string, value func(*page, *diskuse.Estimate) cgroup.Value) diskMetric {
	label := "device"
	if volumes {
		label = "destination"
	}
	return diskMetric{Metric{expo.Family{Name: name, Unit: unit, Type: gauge, Help: what + "; estimated in the background, see the age."},
		"disk", []string{label}}, volumes, value}
}

// trees are what of a container is walked: its writable layer, and its volumes. A mount of something that is not a
// directory of its own disk, or of the whole host, is nobody's volume.
func trees(c *container.Container) (layer string, volumes []container.Mount) {
	for _, m := range c.Mounts {
		if m.Type == "volume" || m.Name != "" {
			volumes = append(volumes, m)
		}
	}
	return c.Rootfs.Upper, volumes
}

// wantDisk tells the estimator which trees there are now.
func (m *Metrics) wantDisk(v view) {
	if m.disk == nil {
		return
	}
	var paths []string
	for _, s := range v.slots {
		if s.layer != "" {
			paths = append(paths, s.layer)
		}
		for _, vol := range s.volumes {
			paths = append(paths, vol.Source)
		}
	}
	m.disk.Want(paths)
}

// runDisk makes estimates while the part runs, when they are asked for.
func (m *Metrics) runDisk(ctx context.Context) error {
	if m.disk != nil {
		m.disk.Run(ctx)
	}
	return nil
}

func (m *Metrics) writeDisk(s *encode, p *page) {
	if m.disk == nil || s.exclude["disk"] {
		return
	}
	for i := range diskMetrics {
		d := &diskMetrics[i]
		s.encoder.Family(d.Family)
		for j := range p.readings {
			of := p.readings[j].slot
			if !d.volumes {
				if e, ok := m.disk.Get(of.layer); ok && (e.Inodes > 0 || e.Counted) {
					if v := d.value(p, &e); v.Known {
						s.sample(of, of.labels, s.devices.labels(e.Major, e.Minor).device, float64(v.N))
					}
				}
				continue
			}
			for _, vol := range of.volumes {
				if e, ok := m.disk.Get(vol.Source); ok && (e.Inodes > 0 || e.Counted) {
					if v := d.value(p, &e); v.Known {
						s.sample(of, of.labels, expo.AppendLabel(nil, "destination", vol.Destination), float64(v.N))
					}
				}
			}
		}
	}
}
