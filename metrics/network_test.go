package metrics

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

const netdevHead = "Inter-|   Receive |  Transmit\n face |bytes packets |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"

func TestTheHostsEndIsMirroredUnderTheContainersInterfaceName(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	c := recordedContainer("v1")
	c.Attachments = []container.Attachment{{Link: container.Link{Index: 12}, IfName: "blue0"}}
	h.publish(c)
	labels := `{id="/docker/` + recordedID + `",image="docker.io/library/nginx:1.29",name="web",interface="blue0"}`
	want := map[string]string{}
	// The kernel counts rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped from 100.
	for name, value := range map[string]string{
		"receive_packets": "101", "transmit_packets": "100", "receive_bytes": "103", "transmit_bytes": "102",
		"receive_errors": "105", "transmit_errors": "104", "receive_packets_dropped": "107", "transmit_packets_dropped": "106",
	} {
		want["container_network_"+name+"_total"+labels] = value
	}
	if diff := cmp.Diff(want, series(t, h.Metrics, "container_network_")); diff != "" {
		t.Error(diff)
	}
}

func interfaces(t *testing.T, h *recordedHost) []string {
	t.Helper()
	out := []string{}
	for name := range series(t, h.Metrics, "container_network_receive_bytes_total") {
		_, rest, _ := strings.Cut(name, `interface="`)
		out = append(out, strings.TrimSuffix(rest, `"}`))
	}
	return out
}

func TestInterfaceNamesComeFromTheContainerWhereTheyCanBeHad(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	c := recordedContainer("v1")
	h.publish(c)
	if got := interfaces(t, h); !cmp.Equal(got, []string{"veth12"}) {
		t.Errorf("with nothing to be had: %v", got)
	}

	h = newHost(t, "v1", nil)
	h.write(t, "proc/4711/net/dev", netdevHead+"  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n")
	h.publish(c)
	if got := interfaces(t, h); !cmp.Equal(got, []string{"eth0"}) {
		t.Errorf("the only one: %v", got)
	}
	// The name stays while the link does, without another look.
	if err := os.RemoveAll(filepath.Join(h.dir, "proc/4711/net")); err != nil {
		t.Fatal(err)
	}
	h.publish(c)
	if got := interfaces(t, h); !cmp.Equal(got, []string{"eth0"}) {
		t.Errorf("later: %v", got)
	}

	h = newHost(t, "v1", nil)
	h.write(t, "sys/class/net/veth12/iflink", "7\n")
	h.write(t, "proc/4711/net/dev_mcast", "2    eth0 1 0 01005e000001\n7    eth1 1 0 01005e000001\n")
	c.Links = append(c.Links, container.Link{Index: 13, Name: "veth13"})
	h.publish(c)
	if got := interfaces(t, h); !cmp.Equal(got, []string{"eth1"}) {
		t.Errorf("by its index: %v", got)
	}
}

func TestWithoutAHostEndTheCountersAreReadInsideButNeverTheHostsOwn(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.write(t, "proc/4711/net/dev", netdevHead+"macvlan0: 11 1 0 0 0 0 0 0 22 1 0 0 0 0 0 0\n")
	own := filepath.Join(h.dir, "proc/self/ns/net")
	h.write(t, "proc/self/ns/net", "")
	ns, err := host.StatNetNS(own)
	if err != nil {
		t.Fatal(err)
	}
	c := recordedContainer("v1")
	c.Links = nil
	h.publish(c)
	got := series(t, h.Metrics, "container_network_transmit_bytes_total")
	if want := (map[string]string{`container_network_transmit_bytes_total{id="/docker/` + recordedID + `",image="docker.io/library/nginx:1.29",name="web",interface="macvlan0"}`: "22"}); !cmp.Equal(got, want) {
		t.Errorf("own namespace: %v", got)
	}
	for why, other := range map[string]host.NetNS{"the host's namespace": ns, "an unknown one": {}} {
		c.NetNS = other
		h.publish(c)
		if got := series(t, h.Metrics, "container_network_"); len(got) != 0 {
			t.Errorf("%s: %v", why, got)
		}
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	c.NetNS = otherNS
	h.publish(c)
	if got := series(t, h.Metrics, "container_network_"); len(got) != 0 {
		t.Errorf("while our own is unknown: %v", got)
	}
}
