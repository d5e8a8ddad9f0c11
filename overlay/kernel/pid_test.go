//go:build kernel

package kernel

import "os"

func pid() int { return os.Getpid() }
