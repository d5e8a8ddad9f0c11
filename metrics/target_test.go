package metrics

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

func named(name string, change func(*container.Container)) container.Container {
	c := container.Container{ID: container.ID(name), Name: name, State: container.Running, Cgroup: host.Membership{Unified: "/c/" + name}}
	if change != nil {
		change(&c)
	}
	return c
}

func TestOnlyLivingContainersInACgroupOfTheirOwnAreMeasuredAndEachOnce(t *testing.T) {
	t.Parallel()
	in := func(cgroup string) func(*container.Container) {
		return func(c *container.Container) { c.Cgroup.Unified = cgroup }
	}
	is := func(s container.State) func(*container.Container) {
		return func(c *container.Container) { c.State = s }
	}
	got := []string{}
	for _, t := range targets(&container.Snapshot{Containers: []container.Container{
		named("running", nil), named("paused", is(container.Paused)), named("stopping", is(container.Stopping)),
		named("created", is(container.Created)), named("exited", is(container.Exited)),
		named("in-root", in("/")), named("nowhere", in("")), named("again", in("/c/running")),
	}}) {
		got = append(got, t.c.Name)
	}
	if diff := cmp.Diff([]string{"running", "paused", "stopping"}, got); diff != "" {
		t.Error(diff)
	}
	if got := targets(nil); got != nil {
		t.Errorf("without a snapshot: %v", got)
	}
}

func TestAPodsNetworkIsShownOnceUnderItsSandbox(t *testing.T) {
	t.Parallel()
	in := func(ns uint64, sandbox bool) func(*container.Container) {
		return func(c *container.Container) { c.NetNS.Ino, c.Sandbox = ns, sandbox }
	}
	got := map[string]bool{}
	for _, t := range targets(&container.Snapshot{Containers: []container.Container{
		named("app", in(1, false)), named("pause", in(1, true)), named("sidecar", in(1, false)),
		named("first", in(2, false)), named("second", in(2, false)), named("unknown", nil),
	}}) {
		got[t.c.Name] = t.network
	}
	want := map[string]bool{"app": false, "pause": true, "sidecar": false, "first": true, "second": false, "unknown": false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLabelsAreCAdvisorsWhateverTheyHold(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]container.Container{
		`id="/p",image="img",name="a\"b\\\nü"`: {ID: "id", Name: "a\"b\\\nü", Image: "img"},
		`id="/p",image="",name="id"`:           {ID: "id"},
		`container="app",namespace="shop",pod="web-0",id="/p",image="img",name="id"`: {
			ID: "id", Name: "app", Image: "img", Pod: container.Pod{Namespace: "shop", Name: "web-0", Container: "app"}},
	} {
		if got := string(labels(&c, "/p")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	long := container.Container{ID: "id", Name: strings.Repeat("x", 10_000)}
	if got := labels(&long, "/p"); len(got) < 10_000 {
		t.Errorf("cut to %d bytes", len(got))
	}
}
