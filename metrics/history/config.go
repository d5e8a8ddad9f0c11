package history

import (
	"errors"
	"fmt"
	"time"
)

// Config is the section "metrics.history" of the configuration file.
type Config struct {
	// On switches the history on. Default false: an agent that nobody asks for advice or accounts polls nothing.
	On bool `yaml:"on" doc:"sample every container once an interval, for fairlead advise and fairlead usage"`
	// Keep is for how long records are kept. Default 14 days.
	Keep time.Duration `yaml:"keep" doc:"how long records are kept, 1h to 8760h; 336h is 14 days"`
	// Interval is the time between two samples. Default 1m.
	Interval time.Duration `yaml:"interval" doc:"time between two samples, 1s to 5m"`
	// Slot is the time that one record covers, and so the step in which usage can be asked for. Default 10m.
	Slot time.Duration `yaml:"slot" doc:"time that one usage record covers: a whole number of intervals, at most 24h"`
	// Headroom is what a suggested limit is above the measured need: 0.2 is a fifth. Default 0.2.
	Headroom float64 `yaml:"headroom" doc:"how far a suggested limit lies above what was measured, 0 to 2; 0.2 is a fifth"`
}

// DefaultConfig gives the configuration without a file.
func DefaultConfig() Config {
	return Config{Keep: 14 * 24 * time.Hour, Interval: time.Minute, Slot: 10 * time.Minute, Headroom: 0.2}
}

// Validate names every problem with its key. The zero Config is off, and has none.
func (c Config) Validate() error {
	if c == (Config{}) {
		return nil
	}
	var errs []error
	problem := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("metrics.history."+format, args...))
	}
	if !(c.Headroom >= 0 && c.Headroom <= 2) { // NaN is neither
		problem("headroom: %v is not between 0 and 2", c.Headroom)
	}
	if c.Interval < time.Second || c.Interval > 5*time.Minute {
		problem("interval: %s is not between 1s and 5m", c.Interval)
	}
	if c.Keep < time.Hour || c.Keep > 365*24*time.Hour {
		problem("keep: %s is not between 1h and 8760h", c.Keep)
	}
	if c.Slot < c.Interval || c.Slot > 24*time.Hour || c.Interval > 0 && c.Slot%c.Interval != 0 {
		problem("slot: %s is not a whole number of intervals (%s) up to 24h", c.Slot, c.Interval)
	}
	return errors.Join(errs...)
}
