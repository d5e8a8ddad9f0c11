package cni

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

var comparable = []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

func TestWhatAContainerAsksForIsTakenFromTheMostParticularPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, conf, args string
		want             overlay.Request
	}{
		{name: "nothing"},
		{name: "CNI_ARGS", args: "IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.42.1.9;MAC=02:00:00:00:00:09",
			want: overlay.Request{Addr: netip.MustParseAddr("10.42.1.9"), MAC: plan.MAC{2, 0, 0, 0, 0, 9}}},
		{name: "both families, with a length", conf: `"runtimeConfig":{"ips":["fd42::9/64","10.42.1.9/16"]}`,
			want: overlay.Request{Addr: netip.MustParseAddr("10.42.1.9"), Addr6: netip.MustParseAddr("fd42::9")}},
		{name: "annotation before CNI_ARGS", args: "IP=10.42.1.1", conf: `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"fairlead.ips":"10.42.1.2, fd42::2","fairlead.mac":"02:00:00:00:00:02"}}`,
			want: overlay.Request{Addr: netip.MustParseAddr("10.42.1.2"), Addr6: netip.MustParseAddr("fd42::2"), MAC: plan.MAC{2, 0, 0, 0, 0, 2}}},
		{name: "args before annotation", conf: `"args":{"cni":{"ips":["10.42.1.3"],"mac":"02:00:00:00:00:03"}},"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"fairlead.ips":"10.42.1.2","fairlead.mac":"02:00:00:00:00:02"}}`,
			want: overlay.Request{Addr: netip.MustParseAddr("10.42.1.3"), MAC: plan.MAC{2, 0, 0, 0, 0, 3}}},
		{name: "runtimeConfig before args", conf: `"args":{"cni":{"ips":["10.42.1.3"],"mac":"02:00:00:00:00:03"}},"runtimeConfig":{"ips":["10.42.1.4"],"mac":"02:00:00:00:00:04"}`,
			want: overlay.Request{Addr: netip.MustParseAddr("10.42.1.4"), MAC: plan.MAC{2, 0, 0, 0, 0, 4}}},
		{name: "ports", conf: `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80},{"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"192.0.2.1"},{"hostPort":7,"containerPort":7,"protocol":"sctp","hostIP":"::1"}]}`,
			want: overlay.Request{Ports: []plan.Port{
				{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP},
				{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 53, ContainerPort: 5353, Protocol: plan.UDP},
				{HostIP: netip.MustParseAddr("::1"), HostPort: 7, ContainerPort: 7, Protocol: plan.SCTP},
			}}},
		{name: "owner", conf: `"owner":"one"`, want: overlay.Request{Runtime: "one"}},
	} {
		conf, fault := parseConfig(confText(c.conf))
		if fault != nil {
			t.Fatalf("%s: %v", c.name, fault)
		}
		got, fault := conf.request(c.args)
		c.want.Network = "blue"
		if diff := cmp.Diff(c.want, got, comparable...); fault != nil || diff != "" {
			t.Errorf("%s: %v, want - got +:\n%s", c.name, fault, diff)
		}
	}
}

func TestWhatCannotBeMeantIsRefusedByItsPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conf, args, want string
		code             wire.Code
	}{
		{args: "IP=10.42.1", code: 7, want: `CNI_ARGS: IP: expected an IP address, found "10.42.1"`},
		{args: "Ip=10.42.1.1", code: 4, want: `CNI_ARGS: unknown keys ["Ip"]; IgnoreUnknown=1 lets them pass`},
		{args: "IP", code: 4, want: `CNI_ARGS: expected KEY=VALUE`},
		{conf: `"runtimeConfig":{"ips":["10.42.1.1","10.42.1.2"]}`, code: 7, want: "runtimeConfig.ips: expected one address of each family at most, found 10.42.1.1 and 10.42.1.2"},
		{conf: `"runtimeConfig":{"ips":["0.0.0.0"]}`, code: 7, want: "expected an IP address"},
		{conf: `"runtimeConfig":{"mac":"01:00:5e:00:00:01"}`, code: 7, want: "runtimeConfig.mac: 01:00:5e:00:00:01 is not the address of one device"},
		{conf: `"runtimeConfig":{"mac":"here"}`, code: 7, want: "runtimeConfig.mac: expected a MAC address"},
		{conf: `"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80},{"containerPort":80}]}`, code: 7, want: "runtimeConfig.portMappings[1].hostPort: 0 is not between 1 and 65535"},
		{conf: `"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":70000}]}`, code: 7, want: "containerPort: 70000 is not"},
		{conf: `"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}`, code: 7, want: "expected tcp, udp or sctp"},
		{conf: `"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"web1"}]}`, code: 7, want: "runtimeConfig.portMappings[0].hostIP: expected an IP address"},
		{conf: `"owner":"` + strings.Repeat("x", 65) + `"`, code: 7, want: "owner: expected at most 64 bytes, found 65"},
		{conf: `"cniVersion":"0.2.0"`, code: 1, want: `found "0.2.0"`},
	} {
		conf, fault := parseConfig(confText(c.conf))
		if fault == nil {
			_, fault = conf.request(c.args)
		}
		if fault == nil || fault.Code != c.code || !strings.Contains(fault.Error(), c.want) {
			t.Errorf("%s %s: got %+v, want code %d, %s", c.conf, c.args, fault, c.code, c.want)
		}
	}
}

func TestGCWithoutItsListIsRefusedAndWithAnEmptyOneIsNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conf string
		want []plan.Key
		err  string
	}{
		{conf: ``, err: "cni.dev/valid-attachments: required by GC"},
		{conf: `"cni.dev/valid-attachments":[]`},
		{conf: `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`, want: []plan.Key{{Owner: "a", IfName: "eth0"}}},
		{conf: `"cni.dev/attachments":[{"containerID":"b","ifname":"eth1"}]`, want: []plan.Key{{Owner: "b", IfName: "eth1"}}},
		{conf: `"cni.dev/valid-attachments":[{"containerID":"a"}]`, err: `cni.dev/valid-attachments[0]: expected containerID and ifname, found "a" and ""`},
	} {
		conf, fault := parseConfig(confText(c.conf))
		if fault != nil {
			t.Fatal(fault)
		}
		got, fault := conf.valid()
		if diff := cmp.Diff(c.want, got); diff != "" || (fault == nil) != (c.err == "") || fault != nil && fault.Msg != c.err {
			t.Errorf("%s: got %v, %v", c.conf, got, fault)
		}
	}
}

// confText gives a whole configuration with more keys.
func confText(more string) []byte {
	if more != "" {
		more = "," + more
	}
	text := `{"cniVersion":"1.1.0","name":"blue","type":"fairlead-cni"` + more + `}`
	if strings.HasPrefix(more, `,"cniVersion"`) {
		text = strings.Replace(text, `"cniVersion":"1.1.0",`, "", 1)
	}
	return []byte(text)
}

func attachment() plan.Attachment {
	return plan.Attachment{
		Key: plan.Key{Owner: "a", IfName: "eth0"}, Network: "blue", MTU: 1450, Default: true, Default6: true, NetNS: "/run/netns/a",
		Addr: netip.MustParseAddr("10.42.1.2"), Addr6: netip.MustParseAddr("fd42::2"),
		Reach: netip.MustParsePrefix("10.42.0.0/16"), Reach6: netip.MustParsePrefix("fd42::/48"),
	}
}

func TestTheResultFollowsThatOfPluginsBeforeInEveryVersion(t *testing.T) {
	t.Parallel()
	for _, v := range wire.SpecVersions {
		version := ""
		if v < "1.0.0" {
			version = `"version":"4",`
		}
		conf, fault := parseConfig(confText(`"cniVersion":"` + v + `","prevResult":{"cniVersion":"` + v + `","interfaces":[{"name":"net9","sandbox":"/run/netns/a"}],"ips":[{` + version + `"address":"192.0.2.9/24","interface":0}],"routes":[{"dst":"192.0.2.0/24"}],"dns":{"domain":"example.org"}}`))
		if fault != nil {
			t.Fatal(fault)
		}
		prev, err := conf.previous()
		if err != nil {
			t.Fatal(err)
		}
		text, err := conf.result(attachment(), prev)
		if err != nil {
			t.Fatal(err)
		}
		var res struct {
			CNIVersion string
			Interfaces []struct{ Name, Sandbox, MAC string }
			IPs        []struct {
				Address, Gateway string
				Interface        *int
			}
			Routes []struct{ Dst, GW string }
			DNS    struct{ Domain string }
		}
		if err := json.Unmarshal(text, &res); err != nil {
			t.Fatal(err)
		}
		if res.CNIVersion != v || len(res.Interfaces) != 3 || len(res.IPs) != 3 || len(res.Routes) != 3 || res.DNS.Domain != "example.org" {
			t.Fatalf("%s: %s", v, text)
		}
		last := res.Interfaces[2]
		if res.Interfaces[0].Name != "net9" || res.Interfaces[1].Sandbox != "" || last.Name != "eth0" || last.Sandbox != "/run/netns/a" {
			t.Errorf("%s: interfaces %+v", v, res.Interfaces)
		}
		for i, want := range []string{"192.0.2.9/24  0", "10.42.1.2/32 169.254.77.1 2", "fd42::2/128 fe80::1 2"} {
			ip := res.IPs[i]
			if got := ip.Address + " " + ip.Gateway + " " + string(rune('0'+*ip.Interface)); got != want {
				t.Errorf("%s: address %d is %q, want %q", v, i, got, want)
			}
		}
		if r := res.Routes[2]; r.Dst != "::/0" || r.GW != "fe80::1" {
			t.Errorf("%s: routes %+v", v, res.Routes)
		}
	}
}

func TestCheckHearsWhatPluginsAfterUsSaidAndNamesWhatContradicts(t *testing.T) {
	t.Parallel()
	conf, fault := parseConfig(confText(`"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0"},{"name":"eth0","sandbox":"/run/netns/a","mtu":1300}],"ips":[{"address":"10.42.1.2/32","interface":1},{"address":"fd42::3/128","interface":1}],"routes":[{"dst":"10.42.0.0/16"}]}`))
	if fault != nil {
		t.Fatal(fault)
	}
	prev, err := conf.previous()
	if err != nil {
		t.Fatal(err)
	}
	want := overlay.Said{Known: true, MTU: 1300, Routes: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}}
	if diff := cmp.Diff(want, said(prev, "eth0"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if got := contradictions(prev, attachment()); len(got) != 1 || got[0] != "prevResult gives eth0 [10.42.1.2 fd42::3], but it has address fd42::2" {
		t.Errorf("got %q", got)
	}
	other := attachment()
	other.IfName = "eth1"
	if got := contradictions(prev, other); len(got) != 1 || got[0] != "prevResult has no interface eth1 in the container" {
		t.Errorf("got %q", got)
	}
}
