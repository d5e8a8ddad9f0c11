package container

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// views builds what runtimes said from lines such as "containerd moby/a running"; a "!" before the runtime's name says
// that it does not answer.
func views(lines ...string) map[Runtime]*view {
	out := map[Runtime]*view{}
	for _, line := range lines {
		f := strings.Fields(line)
		name, silent := strings.CutPrefix(f[0], "!")
		v := out[Runtime(name)]
		if v == nil {
			v = newView(Runtime(name), "/"+name)
			out[Runtime(name)] = v
		}
		v.state.Answered = !silent
		if len(f) > 1 {
			ns, id, ok := strings.Cut(f[1], "/")
			if !ok {
				ns, id = "", f[1]
			}
			v.put(Container{ID: ID(id), Namespace: ns, Runtime: Runtime(name), State: State(f[2]), Rootfs: Rootfs{Upper: "of " + name}})
		}
	}
	return out
}

func TestEachContainerAppearsOnceUnderTheRuntimeThatKnowsMost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		said []string
		want string
	}{
		"docker's containers are its own, not its containerd's": {
			[]string{"docker a running", "containerd moby/a running", "containerd default/b running"},
			"docker a running, containerd default/b running",
		},
		"a silent docker's containers stay as docker told them": {
			[]string{"!docker a running", "containerd moby/a running"},
			"docker a running",
		},
		"an orphan of docker's is shown by containerd": {
			[]string{"docker", "containerd moby/a running"},
			"containerd moby/a running",
		},
		"without docker, moby is containerd's": {
			[]string{"containerd moby/a running"},
			"containerd moby/a running",
		},
		"pods are CRI's": {
			[]string{"cri a running", "containerd k8s.io/a running", "containerd k8s.io/b running"},
			"cri a running, containerd k8s.io/b running",
		},
		"pods that run on docker are CRI's": {
			[]string{"cri a running", "docker a running", "containerd moby/a running"},
			"cri a running",
		},
		"equal ids in other namespaces are other containers": {
			[]string{"docker web running", "containerd default/web running", "containerd other/web running", "podman web running"},
			"docker web running, podman web running, containerd default/web running, containerd other/web running",
		},
		"a second docker's containerd does not hide the first's containers": {
			[]string{"docker a running", "docker@/x b running", "containerd moby/a running", "containerd@/x moby/b running"},
			"docker a running, docker@/x b running",
		},
		"a task that has ended is stopping until CRI says exited": {
			[]string{"cri a running", "containerd k8s.io/a stopping"},
			"cri a stopping",
		},
		"what docker calls exited stays so": {
			[]string{"docker a exited", "containerd moby/a stopping"},
			"docker a exited",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, e := range merge(views(tt.said...)) {
				got = append(got, fmt.Sprintf("%s %s %s", e.Runtime, e.handle(), e.State))
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestWhatOnlyTheLowerRuntimeKnowsIsFilledIn(t *testing.T) {
	t.Parallel()
	said := views("cri a running", "containerd k8s.io/a running")
	c := said["cri"].containers["a"]
	c.Rootfs = Rootfs{}
	said["cri"].containers["a"] = c
	if got := merge(said); len(got) != 1 || got[0].Rootfs.Upper != "of containerd" || got[0].Runtime != "cri" {
		t.Errorf("got %+v", got)
	}
}

func TestARemovedContainerIsBuriedOnce(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	tomb := func(r Runtime, ns, id string, age time.Duration) Tombstone {
		return Tombstone{Container{ID: ID(id), Runtime: r, Namespace: ns}, now.Add(-age)}
	}
	for name, tt := range map[string]struct {
		tombs, gone []Tombstone
		said        []string
		want        string
	}{
		"docker still has it":         {nil, []Tombstone{tomb("containerd", "moby", "a", 0)}, []string{"docker a exited"}, "[]"},
		"docker removed it as well":   {nil, []Tombstone{tomb("containerd", "moby", "a", 0), tomb("docker", "", "a", 0)}, nil, "[docker/a]"},
		"docker removed it long ago":  {[]Tombstone{tomb("docker", "", "a", time.Minute)}, []Tombstone{tomb("containerd", "moby", "a", 0)}, nil, "[docker/a]"},
		"docker never knew it":        {nil, []Tombstone{tomb("containerd", "moby", "a", 0)}, []string{"docker b running"}, "[containerd/a]"},
		"another namespace":           {nil, []Tombstone{tomb("containerd", "default", "a", 0)}, []string{"docker a running"}, "[containerd/a]"},
		"older than ten minutes":      {[]Tombstone{tomb("docker", "", "a", tombstoneAge)}, nil, nil, "[]"},
		"not quite ten minutes old":   {[]Tombstone{tomb("docker", "", "a", tombstoneAge-1)}, nil, nil, "[docker/a]"},
		"the same id came back, dead": {[]Tombstone{tomb("containerd", "default", "a", 1)}, nil, []string{"containerd default/a created"}, "[containerd/a]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, b := range bury(tt.tombs, tt.gone, views(tt.said...), now) {
				got = append(got, string(b.Runtime)+"/"+string(b.ID))
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestAttachmentsFindTheirContainersByNetworkNamespace(t *testing.T) {
	t.Parallel()
	pod, alone := host.NetNS{Dev: 4, Ino: 1}, host.NetNS{Dev: 4, Ino: 2}
	have := []Container{
		{ID: "app", Runtime: "cri", NetNS: pod}, {ID: "pause", Runtime: "cri", NetNS: pod, Sandbox: true}, {ID: "dead", Runtime: "docker"},
	}
	board := []Attachment{
		{Owner: "pause", Network: "blue", NetNS: pod, Link: Link{7, "fl7"}},
		{Owner: "bare", Network: "blue", NetNS: alone, Link: Link{8, "fl8"}},
		{Owner: "bare", Network: "red", NetNS: alone, Link: Link{9, "fl9"}},
		{Owner: "lost", Network: "red"},
	}
	s := newSnapshot(time.Time{}, 1, join(have, board))
	if len(s.Containers) != 4 {
		t.Fatalf("containers are %s", ids(s))
	}
	for _, c := range s.ByNetNS(pod) {
		if len(c.Attachments) != 1 || c.Attachments[0].Network != "blue" {
			t.Errorf("%s has %+v", c.ID, c.Attachments)
		}
	}
	if c, ok := s.ByLink(7); !ok || c.ID != "pause" {
		t.Errorf("link 7 leads to %+v, want the pod's sandbox", c)
	}
	bare, ok := s.Get("cni", "bare")
	if !ok || bare.State != Running || len(bare.Attachments) != 2 || len(bare.Links) != 2 {
		t.Errorf("bare is %+v", bare)
	}
	if d, _ := s.Get("docker", "dead"); len(d.Attachments) != 0 {
		t.Errorf("a container without a namespace has %+v", d.Attachments)
	}
}

func TestAnUnpluggedContainerIsGoneUnlessItsRuntimeHasToldOfIt(t *testing.T) {
	t.Parallel()
	a, b, c := host.NetNS{Ino: 1}, host.NetNS{Ino: 2}, host.NetNS{Ino: 3}
	before := []Container{{ID: "stays", Runtime: "cni", NetNS: a}, {ID: "told", Runtime: "cni", NetNS: b}, {ID: "gone", Runtime: "cni", NetNS: c}}
	after := []Container{{ID: "stays", Runtime: "cni", NetNS: a}, {ID: "x", Runtime: "docker", NetNS: b}}
	got := unplugged(before, after, time.Unix(1, 0))
	if len(got) != 1 || got[0].ID != "gone" {
		t.Errorf("got %+v, want only the one called gone", got)
	}
}

func TestARuntimeWithoutMemoryDoesNotMakeUsForget(t *testing.T) {
	t.Parallel()
	start, end := time.Unix(100, 0), time.Unix(200, 0)
	log := Log{Path: "/l", Format: Plain}
	for name, tt := range map[string]struct{ old, told, want Container }{
		"a task that was deleted leaves an exited container": {
			Container{State: Stopping, Started: start, Finished: end, ExitCode: 3, Log: log}, Container{State: Created},
			Container{State: Exited, Started: start, Finished: end, ExitCode: 3, Log: log},
		},
		"so does one whose end was not seen": {
			Container{State: Running, PID: 7, Started: start}, Container{State: Created}, Container{State: Exited, Started: start},
		},
		"a new task is a new run": {
			Container{State: Exited, Started: start, Finished: end, ExitCode: 3}, Container{State: Running, PID: 8}, Container{State: Running, PID: 8},
		},
		"a container that never ran was created": {Container{}, Container{State: Created}, Container{State: Created}},
	} {
		if got := carry(tt.old, tt.told); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, tt.want)
		}
	}
}

func TestAListReplacesTheViewAndTellsWhatIsGone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	v := views("containerd default/a running", "containerd default/b running")["containerd"]
	gone := v.list(now, []Container{{ID: "b", Namespace: "default", State: Running}, {ID: "a", Namespace: "other", State: Running}})
	if len(gone) != 1 || gone[0].ID != "a" || gone[0].Namespace != "default" || !gone[0].Removed.Equal(now) || !v.state.Asked.Equal(now) {
		t.Errorf("gone are %+v", gone)
	}
	var left []string
	for _, e := range v.sorted() {
		left = append(left, string(e.handle()))
	}
	if !slices.Equal(left, []string{"default/b", "other/a"}) {
		t.Errorf("left are %v", left)
	}
	if v.put(Container{ID: "a", Namespace: "other", State: Running}) {
		t.Error("an unchanged container counts as changed")
	}
}
