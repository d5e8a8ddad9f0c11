package plan

import (
	"maps"
	"slices"
)

// The host-wide settings that routing to containers needs; ip-sysctl.rst of the kernel.
const (
	forward4 = "net.ipv4.ip_forward"
	forward6 = "net.ipv6.conf.all.forwarding"
)

// Sysctls names the settings that Observe must read. One that this kernel does not have is left out there.
func Sysctls() []string { return []string{forward4, forward6} }

// sysctlSteps leads from have to what want needs. IPv6 forwarding is only turned on for a network that has IPv6: with
// it a host takes no more router advertisements on an interface whose accept_ra is 1 (package kernel sees to that).
func sysctlSteps(want Host, have map[string]string) []Step {
	needs := map[string]string{forward4: "1"}
	for _, n := range want.Networks {
		if n.CIDR6.IsValid() {
			needs[forward6] = "1"
		}
	}
	var steps []Step
	for _, key := range slices.Sorted(maps.Keys(needs)) {
		if have[key] != needs[key] {
			steps = append(steps, SetSysctl{key, needs[key]})
		}
	}
	return steps
}
