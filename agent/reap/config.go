package reap

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Config is the section `orphans`.
type Config struct {
	Grace      time.Duration `yaml:"grace" doc:"time between the two lists of a runtime that must both lack a container before what it left counts as an orphan"`
	Quarantine time.Duration `yaml:"quarantine" doc:"how long what clean moved aside can be brought back by undo; then it is deleted"`
	Containerd []string      `yaml:"containerd" doc:"state and root directories of containerd, beside the usual ones"`
	Leases     []string      `yaml:"leases" doc:"data directories of the CNI plugin host-local, beside /var/lib/cni/networks"`
}

// DefaultConfig is the default.
func DefaultConfig() Config { return Config{Grace: 10 * time.Minute, Quarantine: 7 * 24 * time.Hour} }

// Validate names every problem with its key.
func (c Config) Validate() error {
	var errs []error
	if c.Grace <= 0 {
		errs = append(errs, fmt.Errorf("orphans.grace: expected a time above 0 such as 10m, found %s", c.Grace))
	}
	if c.Quarantine < time.Hour {
		errs = append(errs, fmt.Errorf("orphans.quarantine: expected at least 1h, found %s", c.Quarantine))
	}
	return errors.Join(append(errs, absolute("containerd", c.Containerd), absolute("leases", c.Leases))...)
}

func absolute(key string, dirs []string) error {
	var errs []error
	for i, dir := range dirs {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("orphans.%s[%d]: expected an absolute path, found %q", key, i, dir))
		}
	}
	return errors.Join(errs...)
}

// Rules are what Plan decides by.
type Rules struct {
	Grace time.Duration // between the two observations
	Busy  time.Duration // how long a part may hold a resource up after its container was first seen gone
}

func (c Config) rules() Rules { return Rules{Grace: c.Grace, Busy: max(6*c.Grace, time.Hour)} }

// every is the interval of observations: an orphan is reported within two of them after its grace, and a container that
// lives longer is seen with what it has.
func (c Config) every() time.Duration {
	return min(max(c.Grace/2, 100*time.Millisecond), 2*time.Minute)
}
