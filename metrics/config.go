package metrics

import (
	"fmt"
	"time"
)

// Config is the section "metrics" of the configuration file.
type Config struct {
	// Timeout bounds one scrape: a container that could not be read by then is left out and counted in
	// fairlead_metrics_left_out_total. It belongs below the scraper's own timeout. Between 10ms and 1m; default 5s.
	Timeout time.Duration `yaml:"timeout" doc:"bound of one scrape, 10ms to 1m; what could not be read by then is left out and counted"`
}

// DefaultConfig gives the configuration without a file.
func DefaultConfig() Config { return Config{Timeout: 5 * time.Second} }

// Validate names every problem with its key.
func (c Config) Validate() error {
	const least, most = 10 * time.Millisecond, time.Minute
	if c.Timeout < least || c.Timeout > most {
		return fmt.Errorf("metrics.timeout: %s is not between %s and %s", c.Timeout, least, most)
	}
	return nil
}
