package hosttest

import (
	"os"
	"time"
)

// Bound gives how long something may take here that may take d on real hardware: ten times as long where QEMU emulates
// the processor, which the machines of `make test-vm` say by FAIRLEAD_EMULATED=1.
func Bound(d time.Duration) time.Duration {
	if os.Getenv("FAIRLEAD_EMULATED") == "1" {
		return 10 * d
	}
	return d
}
