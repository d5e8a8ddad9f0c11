package kernel

import (
	"fmt"
	"os"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Sysctls reads the host-wide settings that the overlay cares for.
func (c *Conn) Sysctls() (map[string]string, error) {
	out := map[string]string{}
	for _, key := range plan.Sysctls() {
		b, err := os.ReadFile(c.sysctlPath(key))
		if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", key, err)
		}
		out[key] = strings.TrimSpace(string(b))
	}
	return out, nil
}

func (c *Conn) setSysctl(key, value string) error {
	return os.WriteFile(c.sysctlPath(key), []byte(value), 0o644)
}
