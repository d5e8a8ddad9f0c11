package detect

import (
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
)

func idOf(s string) container.ID { return container.ID(s) }

func fmtInstance(dev, ino uint64) string { return fmt.Sprintf("%d:%d", dev, ino) }

// isLongID tells the ids that runtimes draw: 64 hexadecimal digits.
func isLongID(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }
