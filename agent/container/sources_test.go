package container

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestDockerStatesAndPodmansMeanTheSame(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]State{
		`"Status":"running","Pid":7`: Running, `"Status":"paused","Pid":7`: Paused, `"Status":"created"`: Created,
		`"Status":"configured"`: Created, `"Status":"removing"`: Stopping, `"Status":"stopping","Pid":7`: Stopping,
		`"Status":"exited"`: Exited, `"Status":"dead"`: Exited, `"Status":"restarting"`: Exited, `"Status":"restarting","Pid":7`: Running,
	} {
		var i inspected
		if err := json.Unmarshal([]byte(`{"Id":"x","State":{`+status+`}}`), &i); err != nil {
			t.Fatal(err)
		}
		if got := i.container("docker").State; got != want {
			t.Errorf("%s: got %s, want %s", status, got, want)
		}
	}
}

func TestLogsOfDockerAndPodmanHaveTheFormatTheyAreWrittenIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		runtime         Runtime
		driver, path    string
		format          LogFormat
		wantPath, wantD string
	}{
		{"docker", "json-file", "/d/x-json.log", DockerJSON, "/d/x-json.log", "json-file"},
		{"docker", "local", "/d/container.log", "", "", "local"},
		{"docker", "journald", "", "", "", "journald"},
		{"podman", "k8s-file", "/p/ctr.log", CRI, "/p/ctr.log", "k8s-file"},
		{"podman", "json-file", "/p/ctr.log", CRI, "/p/ctr.log", "json-file"},
		{"podman@/other.sock", "k8s-file", "/p/ctr.log", CRI, "/p/ctr.log", "k8s-file"},
	} {
		i := inspected{LogPath: tt.path}
		i.HostConfig.LogConfig.Type = tt.driver
		if got := i.log(tt.runtime); got != (Log{Path: tt.wantPath, Format: tt.format, Driver: tt.wantD}) {
			t.Errorf("%s %s: got %+v", tt.runtime, tt.driver, got)
		}
	}
}

func TestALogThatDockerEmptiesIsKnownByItsOptions(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]bool{
		`{}`: false, `{"max-size":"20k"}`: true, `{"max-size":"20k","max-file":"1"}`: true, `{"max-size":"20k","max-file":"3"}`: false,
	} {
		var i inspected
		text := `{"LogPath":"/d/x-json.log","HostConfig":{"LogConfig":{"Type":"json-file","Config":` + options + `}}}`
		if err := json.Unmarshal([]byte(text), &i); err != nil {
			t.Fatal(err)
		}
		l := i.log("docker")
		if l.Truncates != want {
			t.Errorf("%s: %v, want %v", options, l.Truncates, want)
		}
		if want && l.MaxBytes != 20_000 {
			t.Errorf("%s: full at %d bytes", options, l.MaxBytes)
		}
	}
}

func TestANameIsTheLabelElseTheRuntimesElseTheID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"Id":"i","Name":"/web"}`: "web",
		`{"Id":"i","Name":"web"}`:  "web",
		`{"Id":"i"}`:               "i",
		`{"Id":"i","Name":"/web","Config":{"Labels":{"fairlead.name":"shop"}}}`:                                  "shop",
		`{"Id":"i","Name":"/k8s_till_web_shop_u_0","Config":{"Labels":{"io.kubernetes.container.name":"till"}}}`: "till",
	} {
		var i inspected
		if err := json.Unmarshal([]byte(text), &i); err != nil {
			t.Fatal(err)
		}
		if c := i.container("docker"); c.Name != want {
			t.Errorf("%s: got %s, want %s", text, c.Name, want)
		}
	}
}

func TestEventsThatChangeNoContainerAreNotAskedAbout(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"Action":"start"}`: true, `{"Action":"die"}`: true, `{"status":"died"}`: true, `{"Action":"destroy"}`: true,
		`{"Action":"something-new"}`: true, `{"Action":"rename"}`: true,
		`{"Action":"exec_create: sh -c check"}`: false, `{"Action":"exec_die"}`: false, `{"Action":"health_status: healthy"}`: true,
		`{"status":"exec"}`: false, `{"Action":"top"}`: false,
	} {
		var e dockerEvent
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if e.matters() != want {
			t.Errorf("%s: got %t, want %t", text, !want, want)
		}
	}
}

func TestAnEngineNamesItselfInTheHeaderOfAPing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ header, api, kind, err string }{
		{"Api-Version: 1.41\r\nServer: Docker/20.10.24 (linux)\r\n", "1.41", "docker", ""},
		{"API-Version: 1.41\r\nLibpod-API-Version: 4.3.1\r\nServer: Libpod/4.3.1 (linux)\r\n", "1.41", "podman", ""},
		{"Server: nginx\r\n", "", "", "the answer is not a container engine's"},
	} {
		h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(tt.header + "\r\n"))).ReadMIMEHeader()
		if err != nil {
			t.Fatal(err)
		}
		api, kind, err := engine(http.Header(h))
		if api != tt.api || kind != tt.kind || (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
			t.Errorf("%q: got %q, %q, %v", tt.header, api, kind, err)
		}
	}
}

func TestATasksLogIsReadFromItsURI(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]Log{
		"":                                  {Driver: "none"},
		"file:///var/log/x.log":             {Path: "/var/log/x.log", Format: Plain, Driver: "file"},
		"file:///var/log/x.log?maxsize=1m":  {Path: "/var/log/x.log", Format: Plain, Driver: "file"},
		"/run/containerd/fifo/1/web-stdout": {Driver: "fifo"},
		"binary:///usr/bin/logger?id=1":     {Driver: "binary"},
		"binary:///usr/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib%2Fnerdctl%2F1935db59": {
			Path: "/var/lib/nerdctl/1935db59/containers/default/web/web-json.log", Format: DockerJSON, Driver: "json-file"},
	} {
		if got := taskLog(uri, "default", "web"); got != want {
			t.Errorf("%s: got %+v, want %+v", uri, got, want)
		}
	}
}

func TestASpecificationGivesLimitsAndTheMountsThatMatter(t *testing.T) {
	t.Parallel()
	s, err := parseSpec([]byte(`{
		"mounts":[
			{"destination":"/proc","type":"proc","source":"proc"},
			{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid"]},
			{"destination":"/run","type":"tmpfs","source":"tmpfs"},
			{"destination":"/scratch","type":"tmpfs","source":"tmpfs"},
			{"destination":"/data","type":"none","source":"/srv/data","options":["rbind","ro"]},
			{"destination":"/var","type":"bind","source":"/vol/_data","options":["rw"]}],
		"linux":{"resources":{"memory":{"limit":67108864},"cpu":{"quota":50000,"period":100000},"pids":{"limit":-1}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.limits(); got != (Limits{MemoryBytes: 64 << 20, CPUs: 0.5}) {
		t.Errorf("limits are %+v", got)
	}
	got := named(s.mounts(), `[{"Type":"volume","Name":"vol","Source":"/vol/_data","Destination":"/var"}]`)
	want := []Mount{
		{Type: "tmpfs", Destination: "/scratch"},
		{Type: "bind", Source: "/srv/data", Destination: "/data", ReadOnly: true},
		{Type: "volume", Name: "vol", Source: "/vol/_data", Destination: "/var"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("mounts are\n%+v\nwant\n%+v", got, want)
	}
	if _, err := parseSpec([]byte(`{"mounts":7}`)); err == nil {
		t.Error("a foreign specification was read")
	}
}

func TestTheEndOfAnExecutedProcessIsNotTheContainers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		topic string
		event proto.Message
		want  string
	}{
		{"/tasks/exit", &events.TaskExit{ContainerID: "web", ID: "web"}, "web"},
		{"/tasks/exit", &events.TaskExit{ContainerID: "web", ID: "healthcheck"}, ""},
		{"/containers/delete", &events.ContainerDelete{ID: "web"}, "web"},
		{"/tasks/start", &events.TaskStart{ContainerID: "web"}, "web"},
		{"/images/create", &events.ImageCreate{Name: "x"}, ""},
	} {
		b, err := proto.Marshal(tt.event)
		if err != nil {
			t.Fatal(err)
		}
		got, err := eventSubject(&types.Envelope{Topic: tt.topic, Event: &anypb.Any{Value: b}})
		if err != nil || got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.topic, got, err, tt.want)
		}
	}
	if _, err := eventSubject(&types.Envelope{Topic: "/tasks/exit", Event: &anypb.Any{Value: []byte{0xff}}}); err == nil {
		t.Error("a torn event was read")
	}
}

func TestAnOverlayMountGivesTheUpperDirectory(t *testing.T) {
	t.Parallel()
	got := rootfsOf([]*types.Mount{{Type: "overlay", Options: []string{"workdir=/w", "upperdir=/u", "lowerdir=/a:/b"}}})
	if fmt.Sprint(got) != fmt.Sprint(Rootfs{Upper: "/u", Lower: []string{"/a", "/b"}}) {
		t.Errorf("got %+v", got)
	}
}

func TestTheLinkTableFollowsTheKernel(t *testing.T) {
	t.Parallel()
	veth := func(index, nsid int) netlink.Link {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: index, Name: fmt.Sprint("v", index), NetNsID: nsid}}
	}
	update := func(typ uint16, family uint8, l netlink.Link) netlink.LinkUpdate {
		return netlink.LinkUpdate{
			Header: unix.NlMsghdr{Type: typ}, Link: l,
			IfInfomsg: nl.IfInfomsg{IfInfomsg: unix.IfInfomsg{Family: family}},
		}
	}
	table := linkTable{}
	for _, step := range []struct {
		what    string
		update  netlink.LinkUpdate
		changed bool
		size    int
	}{
		{"a veth into a container", update(unix.RTM_NEWLINK, 0, veth(5, 3)), true, 1},
		{"the same again", update(unix.RTM_NEWLINK, 0, veth(5, 3)), false, 1},
		{"a veth within the host", update(unix.RTM_NEWLINK, 0, veth(6, -1)), false, 1},
		{"a bridge says that its port left", update(unix.RTM_DELLINK, unix.AF_BRIDGE, veth(5, 3)), false, 1},
		{"another kind of link", update(unix.RTM_NEWLINK, 0, &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: 9, NetNsID: 3}}), false, 1},
		{"its other end came to another namespace", update(unix.RTM_NEWLINK, 0, veth(5, 4)), true, 1},
		{"its other end came back to the host", update(unix.RTM_NEWLINK, 0, veth(5, -1)), true, 0},
		{"a veth into a container again", update(unix.RTM_NEWLINK, 0, veth(5, 3)), true, 1},
		{"it was deleted", update(unix.RTM_DELLINK, 0, veth(5, 3)), true, 0},
	} {
		if got := table.take(step.update); got != step.changed || len(table) != step.size {
			t.Errorf("%s: changed %t, table %v; want %t and %d entries", step.what, got, table, step.changed, step.size)
		}
	}
}

func TestTheFirstRuntimeOfAKindHasThePlainName(t *testing.T) {
	t.Parallel()
	v := &Inventory{names: map[string]Runtime{}}
	got := []Runtime{
		v.nameFor("containerd", "/run/containerd/containerd.sock"), v.nameFor("containerd", "/run/k3s/containerd/containerd.sock"),
		v.nameFor("cri", "/run/k3s/containerd/containerd.sock"), v.nameFor("containerd", "/run/containerd/containerd.sock"),
	}
	want := []Runtime{"containerd", "containerd@/run/k3s/containerd/containerd.sock", "cri", "containerd"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestConfigNamesEveryProblemWithItsKey(t *testing.T) {
	t.Parallel()
	err := Config{Run: "run", Sockets: []string{"/ok", "x.sock"}}.Validate()
	want := "run: \"run\" is not an absolute path\nsockets[1]: \"x.sock\" is not an absolute path"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
