package logship

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
)

// Config is the section logship of the configuration file.
type Config struct {
	// Files are plain files of the host to follow.
	Files []File `yaml:"files" doc:"files of the host to follow, besides what containers write"`
	// Sinks are where lines go; each gets all of them and none waits for another.
	Sinks []SinkConfig `yaml:"sinks" doc:"where lines go; each sink gets all of them and none waits for another"`
	// Pins is where hard links keep rotated logs until they are delivered: "auto" is .fairlead-pins at the top of each
	// log's mount, "off" keeps them by open descriptors only, a path is that directory.
	Pins string `yaml:"pins" doc:"where hard links keep rotated logs until they are delivered: auto (.fairlead-pins at the top of each mount), off (open descriptors only), or a directory"`
	// MirrorBytes bounds, for each log, the copy that is made of what a sink has not taken when its program truncates it.
	MirrorBytes uint64 `yaml:"mirror_bytes" doc:"for a log that its program truncates (copytruncate, docker max-file=1): at most this much is copied while a sink is behind; 0: nothing is"`
}

// File is a glob of files of the host.
type File struct {
	Path string `yaml:"path" doc:"absolute; * ? [] in any component"`
}

// DefaultConfig follows the containers' own output and files and ships to nowhere until a sink is named.
func DefaultConfig() Config { return Config{Pins: "auto", MirrorBytes: 256 << 20} }

// Validate names every problem with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, got, expected string) {
		errs = append(errs, fmt.Errorf("logship.%s: %q is not valid, expected %s", key, got, expected))
	}
	for i, f := range c.Files {
		if _, err := path.Match(f.Path, ""); err != nil || !filepath.IsAbs(f.Path) {
			bad(fmt.Sprintf("files[%d].path", i), f.Path, "an absolute path or glob such as /var/log/app/*.log")
		}
	}
	if c.Pins != "auto" && c.Pins != "off" && !filepath.IsAbs(c.Pins) {
		bad("pins", c.Pins, "auto, off or an absolute path")
	}
	validateSinks(c, bad)
	return errors.Join(errs...)
}
