// Package linkstat reads what the kernel counted on network interfaces: on all links of the agent's network namespace
// by one RTM_GETSTATS dump, and inside one other namespace by its /proc/PID/net/dev.
//
// The dump costs half a microsecond a link; a net/dev file 18 us, because the kernel opens, formats and closes it.
// The package owns nothing that outlives a call.
package linkstat

// Counters are one interface's counters as seen from the side of the interface.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Mirror gives the counters of the other end of a veth pair: what this end sent, the other received. What the other
// end's own stack dropped after it had received it is not seen from here.
func (c Counters) Mirror() Counters {
	return Counters{
		RxBytes: c.TxBytes, RxPackets: c.TxPackets, RxErrors: c.TxErrors, RxDropped: c.TxDropped,
		TxBytes: c.RxBytes, TxPackets: c.RxPackets, TxErrors: c.RxErrors, TxDropped: c.RxDropped,
	}
}
