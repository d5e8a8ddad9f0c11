package main

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/probe"
)

func TestChecksOfPeersAreOneLineEachAndThenWhatIsWrong(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	printChecks(env{stdout: &out}, []overlay.PeerCheck{
		{Peer: "web2", Address: netip.MustParseAddr("192.0.2.12"), Path: "direct", RTT: 0.000162, MTU: 1450, OK: true},
		{Peer: "web3", Address: netip.MustParseAddr("198.51.100.13"), Path: "vxlan", Findings: []probe.Finding{{
			Hop: "behind 192.0.2.254", Cause: "UDP port 4789 is blocked",
			Cure: "let UDP port 4789 pass both ways between 198.51.100.13 and this host: firewalls, security groups",
		}}},
		{Peer: "web4", Address: netip.MustParseAddr("192.0.2.14"), Path: "vxlan", RTT: 0.00021, MTU: 1450, OK: true, Findings: []probe.Finding{{Hop: "eth0", Cause: "why", Cure: "how", Note: true}}},
	})
	want := `PEER  ADDRESS        PATH    RTT     MTU   STATE
web2  192.0.2.12     direct  0.16ms  1450  ok
web3  198.51.100.13  vxlan   -       -     PROBLEM
web4  192.0.2.14     vxlan   0.21ms  1450  ok

!! web3: UDP port 4789 is blocked
   where: behind 192.0.2.254
   cure:  let UDP port 4789 pass both ways between 198.51.100.13 and this host: firewalls, security groups

-- web4: why
   where: eth0
   cure:  how
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	printChecks(env{stdout: &out}, nil)
	if out.String() != "no peers: a single host, or one that is alone so far\n" {
		t.Errorf("without peers: %q", out.String())
	}
}
