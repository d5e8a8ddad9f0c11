package hosttest

import (
	"os"
	"time"
)

// Emulated tells whether QEMU emulates the processor, which the machines of `make test-vm` say by FAIRLEAD_EMULATED=1.
func Emulated() bool { return os.Getenv("FAIRLEAD_EMULATED") == "1" }

// Bound gives how long something may take here that may take d on real hardware: ten times as long under emulation.
func Bound(d time.Duration) time.Duration {
	if Emulated() {
		return 10 * d
	}
	return d
}

// Stride gives how far apart the steps are that a test kills at: each on real hardware, each seventh under emulation, where
// all would take a quarter of an hour and show nothing that depends on the machine.
func Stride() int {
	if Emulated() {
		return 7
	}
	return 1
}
