package metrics

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// deviceMetric has, for each container and each block device that it has used, one series for each of its operations.
type deviceMetric struct {
	Metric
	ops   []cgroup.Op
	value func(d *cgroup.Device, op cgroup.Op) cgroup.Value
}

var deviceMetrics = []deviceMetric{
	perDevice("container_fs_reads_bytes_total", "bytes", "Bytes read from the device", cgroup.Read, deviceBytes),
	perDevice("container_fs_reads_total", "", "Reads done on the device", cgroup.Read, deviceDone),
	perDevice("container_fs_writes_bytes_total", "bytes", "Bytes written to the device", cgroup.Write, deviceBytes),
	perDevice("container_fs_writes_total", "", "Writes done on the device", cgroup.Write, deviceDone),
	{
		Metric: Metric{expo.Family{Name: "container_blkio_device_usage_total", Type: counter,
			Help: "Bytes moved by each kind of operation, from blkio.throttle.io_service_bytes_recursive (v1) or io.stat (v2: Read, Write and Discard)."},
			"io", []string{"device", "major", "minor", "operation"}},
		ops: cgroup.Ops(), value: deviceBytes,
	},
	latency("container_fs_io_latency_seconds", "How long the container's requests to the device take on average, from io.stat avg_lat; only where io.latency is set (v2). Not in cAdvisor.",
		func(d *cgroup.Device, _ cgroup.Op) cgroup.Value { return d.Latency }),
	latency("container_spec_fs_io_latency_seconds", "How long they may take before others are slowed down, from io.latency (v2). Not in cAdvisor.",
		func(d *cgroup.Device, _ cgroup.Op) cgroup.Value { return d.LatencyTarget }),
}

func latency(name, help string, value func(*cgroup.Device, cgroup.Op) cgroup.Value) deviceMetric {
	return deviceMetric{Metric{expo.Family{Name: name, Unit: "seconds", Type: gauge, Help: help}, "io", []string{"device"}}, []cgroup.Op{cgroup.Total}, value}
}

func deviceBytes(d *cgroup.Device, op cgroup.Op) cgroup.Value { return d.Bytes[op] }
func deviceDone(d *cgroup.Device, op cgroup.Op) cgroup.Value  { return d.Done[op] }

func perDevice(name, unit, what string, op cgroup.Op, value func(*cgroup.Device, cgroup.Op) cgroup.Value) deviceMetric {
	help := what + ", from blkio.throttle.*_recursive (v1) or io.stat (v2). What is still in the page cache is not counted."
	return deviceMetric{Metric{expo.Family{Name: name, Unit: unit, Type: counter, Help: help}, "io", []string{"device"}}, []cgroup.Op{op}, value}
}

// devices renders the labels of block devices. It is used by one scrape at a time.
type devices struct {
	sys  string
	page uint64 // counts pages: what is remembered is looked at once on each
	seen map[[2]uint32]*deviceLabels
}

type deviceLabels struct {
	node   string // where sysfs has the device; empty: it knows none
	page   uint64 // that node was looked at for
	device []byte
	usage  [][]byte // by operation
}

// labels gives the rendered labels of one device. They are remembered for as long as sysfs has the same device under that
// number: disks of a cloud come and go, and the next one gets a number that was free.
func (d *devices) labels(major, minor uint32) *deviceLabels {
	const most = 1000
	k := [2]uint32{major, minor}
	l := d.seen[k]
	if l != nil && l.page == d.page {
		return l
	}
	number := fmt.Sprintf("%d:%d", major, minor)
	node, _ := os.Readlink(filepath.Join(d.sys, "dev/block", number)) // none: the device has gone
	if l != nil && l.node == node {
		l.page = d.page
		return l
	}
	if d.seen == nil || len(d.seen) >= most {
		d.seen = map[[2]uint32]*deviceLabels{}
	}
	l = &deviceLabels{node: node, page: d.page, device: expo.AppendLabel(nil, "device", d.name(number))}
	for _, op := range cgroup.Ops() {
		b := expo.AppendLabel(bytes.Clone(l.device), "major", strconv.FormatUint(uint64(major), 10))
		b = expo.AppendLabel(b, "minor", strconv.FormatUint(uint64(minor), 10))
		l.usage = append(l.usage, expo.AppendLabel(b, "operation", op.String()))
	}
	d.seen[k] = l
	return l
}

// name is the path of the device's node, or its number where sysfs does not know it any more: two devices without a name
// would be one series.
func (d *devices) name(number string) string {
	text, err := os.ReadFile(filepath.Join(d.sys, "dev/block", number, "uevent"))
	if err != nil {
		return number
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
			return "/dev/" + name
		}
	}
	return number
}

// write writes the series of every container and device.
func (m *deviceMetric) write(s *encode, p *page) {
	s.encoder.Family(m.Family)
	for i := range p.readings {
		r := &p.readings[i]
		for j := range r.stats.IO {
			dev := &r.stats.IO[j]
			labels := s.devices.labels(dev.Major, dev.Minor)
			for _, op := range m.ops {
				v := m.value(dev, op)
				if !v.Known {
					continue
				}
				extra := labels.device
				if len(m.ops) > 1 {
					extra = labels.usage[op]
				}
				n := float64(v.N)
				if m.Unit == "seconds" {
					n /= 1e9
				}
				s.sample(r.slot, r.slot.labels, extra, n)
			}
		}
	}
}
