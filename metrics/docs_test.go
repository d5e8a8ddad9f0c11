package metrics

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheDocumentationIsTheTable compares docs/metrics.md with the table that the page is made from. Run it with -update
// after a change.
func TestTheDocumentationIsTheTable(t *testing.T) {
	t.Parallel()
	const path = "../docs/metrics.md"
	got := document(newHost(t, "v1", nil))
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryDifferenceHasAReason(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, d := range Differences() {
		if seen[d.Name+d.On] || !strings.HasSuffix(d.Reason, ".") || d.On != "" && d.On != "v1" && d.On != "v2" {
			t.Errorf("%+v", d)
		}
		seen[d.Name+d.On] = true
	}
}

func TestADifferenceCoversNoMoreThanItSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d       Difference
		version string
		root    bool
		theirs  float64
		want    bool
	}{
		{Difference{}, "v1", false, 7, true},
		{Difference{On: "v2"}, "v2", true, 7, true},
		{Difference{On: "v2"}, "v1", true, 7, false},
		{Difference{Root: true}, "v1", true, 7, true},
		{Difference{Root: true}, "v1", false, 7, false},
		{Difference{Zero: true}, "v2", false, 0, true},
		{Difference{Zero: true}, "v2", false, 7, false},
		{Difference{Ours: true}, "v2", false, 0, false},
	} {
		if got := c.d.Covers(c.version, c.root, c.theirs); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

var groupNotes = map[string]string{
	"life":     "What the inventory knows from the runtimes.",
	"cpu":      "Time used, and what limits it.",
	"cpuset":   "Where the container may run.",
	"memory":   "What it holds and may hold.",
	"oom":      "What it cost when memory ran out.",
	"process":  "Processes, threads, open files.",
	"pressure": "How long work stood still (PSI). Needs the unified hierarchy, alone or beside v1.",
	"io":       "Block devices. On cgroup v1, Linux 6.10 and later count only on devices that have a throttling rule in some cgroup; that holds for cAdvisor too.",
	"hugetlb":  "Huge pages, one series for each size.",
	"disk":     "Writable layers and volumes. Only with metrics.also: [disk]; trees are walked in the background once in metrics.disk_every, at a twentieth of a processor, and never by a scrape. A tree that the file system itself keeps count of is not walked but asked for once a minute: a btrfs subvolume under quota, whose inodes are then unknown, or a project of XFS or ext4 whose accounting is on (Linux 5.14).",
	"numa":     "Memory by NUMA node. Only with metrics.also: [numa]; it costs one more file for each container.",
	"sockets":  "Sockets by state. Only with metrics.also: [sockets]; it costs 0.1 ms for each network namespace, and 2 us for each open file.",
	"network":  "As the container sees it. A pod's is shown once, under its sandbox. Drops are those of the link between the container and the host; what the container's own stack drops behind it, a protocol that nobody wants, is counted inside only, where cAdvisor looks.",
	"ended":    "The last sample of containers that ended, for as long as metrics.keep_ended says: read when the first process ends, before the runtime removes the cgroup.",
	"advice":   "What fairlead advise says, for containers that live; only with metrics.history.on.",
	"machine":  "The host itself, with the labels boot_id, machine_id and system_uuid.",
}

func document(h *recordedHost) string {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Written by "go test ./metrics -run TheDocumentation -update" from the code's own table. -->

Every value is read from the kernel at the moment of the scrape. What cannot be known is absent: no series is a 0 that
nobody measured. Names, labels, types and units are cAdvisor's where it has the metric.

Each series of a container has the labels id (its cgroup), image and name; in Kubernetes also container, namespace and
pod. The root cgroup (id="/") and each pod's own cgroup are shown beside the containers unless metrics.aggregates is
false; on v2 the kernel tells neither use nor swap of the root cgroup, which are then rss and cache together, and the
machine's swap. A group of metrics is left out by metrics.exclude, containers by metrics.only and metrics.skip. Groups that cost
more are shown only when metrics.also names them: numa, sockets, disk.

Text and OpenMetrics are chosen by Accept, gzip and zstd by Accept-Encoding; of those that a scraper likes equally gzip,
which costs nothing. With metrics.created OpenMetrics also tells since when each counter counts (NAME_created): the start
of the container, or of the agent for its own. It is off by default, because a Prometheus without the feature flag
created-timestamp-zero-ingestion stores each as one more series, which doubles those of counters.
Limits are not read at each scrape but when somebody has written to their cgroup, which the kernel tells before the write
returns. On cgroup v1 user and system time are read again only when the usage has moved, and bytes of block I/O only when
a request has come: the kernel changes neither otherwise.

"promtool check metrics" has nothing to say of the agent's own metrics. Of cAdvisor's it dislikes some names, here as with
cAdvisor: container_memory_failcnt, and where they are shown container_hugetlb_failcnt, container_fs_inodes_total and
container_network_{tcp,tcp6,udp,udp6}_usage_total. Dashboards ask for these names, so they stay.
`)
	group := ""
	for _, m := range Table() {
		if m.Group != group {
			group = m.Group
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| name | type | labels | what it is |\n|---|---|---|---|\n", group, groupNotes[group])
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), cell(m.Help))
	}
	b.WriteString("\n## The agent's own, of this part\n\n| name | type | what it is |\n|---|---|---|\n")
	for _, f := range h.stats.Families() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Type, cell(f.Help))
	}
	b.WriteString(`
## Differences from cAdvisor

"make bench-metrics-test" holds our page against the page of cAdvisor's own library on the same live containers, series
by series, on cgroup v1 and, in "make test-vm", on v2. These differ, for the groups compared; "id=/" means for the root
cgroup only, "v1" hybrid hosts too. Where a reason says that cAdvisor shows 0, nothing else passes.

| name | where | why |
|---|---|---|
`)
	for _, d := range Differences() {
		where := d.On
		if d.Root {
			where = strings.TrimSpace(where + " id=/")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, where, cell(d.Reason))
	}
	b.WriteString(`
Not compared, because they are on request: memory_numa, tcp, udp, disk (file system use). Not offered: percpu, sched,
cpuLoad, advtcp, perf_event, referenced_memory, resctrl, app. Interfaces of the root cgroup are node_exporter's. Intermediate cgroups (slices without
a container or pod of their own) are not shown; systemd's services are when metrics.services names them.
`)
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
