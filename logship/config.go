package logship

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/logship/shape"
)

// Config is the section logship of the configuration file.
type Config struct {
	// Files are plain files of the host to follow.
	Files []File `yaml:"files" doc:"files of the host to follow, besides what containers write"`
	// Journal is what to follow of systemd's journal.
	Journal []Journal `yaml:"journal" doc:"what of systemd's journal to follow"`
	// JournalDirectory is where journal files lie, for Journal and for containers whose runtime writes to the journal.
	JournalDirectory string `yaml:"journal_directory" doc:"where journal files lie, when that is not the host's usual place: in a pod, where it is mounted"`
	// Sinks are where lines go; each gets all of them and none waits for another.
	Sinks []SinkConfig `yaml:"sinks" doc:"where lines go; each sink gets all of them and none waits for another"`
	// Rules shape lines on their way.
	Rules []shape.Rule `yaml:"rules" doc:"what is done with lines on their way: joined, parsed, dropped, redacted, sent to some sinks only"`
	// Pins is where hard links keep rotated logs until they are delivered: "auto" is .fairlead-pins at the top of each
	// log's mount, "off" keeps them by open descriptors only, a path is that directory.
	Pins string `yaml:"pins" doc:"where hard links keep rotated logs until they are delivered: auto (.fairlead-pins at the top of each mount), off (open descriptors only), or a directory"`
	// PinsBytes bounds, for all logs together, what only the agent still keeps on the disk: rotated and removed files, and
	// mirrors. Beyond it the oldest is given up unread.
	PinsBytes uint64 `yaml:"pins_bytes" doc:"rotated and removed logs that wait for a sink take at most this much disk, all together; beyond it the oldest is given up, and reported; 0: no bound"`
	// MirrorBytes bounds, for each log, the copy that is made of what a sink has not taken when its program truncates it.
	MirrorBytes uint64 `yaml:"mirror_bytes" doc:"for a log that its program truncates (copytruncate, docker max-file=1): at most this much is copied while a sink is behind; 0: nothing is"`
}

// File is a glob of files of the host.
type File struct {
	Path string `yaml:"path" doc:"absolute; * ? [] in any component"`
}

// DefaultConfig follows the containers' own output and files and ships to nowhere until a sink is named.
func DefaultConfig() Config { return Config{Pins: "auto", PinsBytes: 10 << 30, MirrorBytes: 256 << 20} }

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
	named := map[string]bool{}
	for i, j := range c.Journal {
		key := fmt.Sprintf("journal[%d].", i)
		if j.validate(key, bad); named[j.name()] {
			bad(key+"name", j.name(), "a name that no other entry has")
		}
		named[j.name()] = true
	}
	if c.JournalDirectory != "" && !filepath.IsAbs(c.JournalDirectory) {
		bad("journal_directory", c.JournalDirectory, "an absolute path")
	}
	if c.Pins != "auto" && c.Pins != "off" && !filepath.IsAbs(c.Pins) {
		bad("pins", c.Pins, "auto, off or an absolute path")
	}
	validateSinks(c, bad)
	errs = append(errs, validateRules(c))
	return errors.Join(errs...)
}
