package volumes

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Config is the section "volumes" of the configuration file.
type Config struct {
	Directories  []Directory  `yaml:"directories" doc:"directories of this host that are volumes, beside those of containers"`
	Repositories []Repository `yaml:"repositories" doc:"where backups are kept"`
}

// Directory is a directory of the host that is a volume.
type Directory struct {
	Name string `yaml:"name" doc:"1 to 32 of a-z, 0-9, _, . and -"`
	Path string `yaml:"path" doc:"absolute; not a symbolic link"`
}

// Repository is a place for backups.
type Repository struct {
	Name string `yaml:"name" doc:"1 to 32 of a-z, 0-9, _, . and -"`
	Path string `yaml:"path" doc:"a directory, absolute; it is made, empty, or a repository already"`
	Key  string `yaml:"key" doc:"what the backups are encrypted by; empty: a random one, kept in the state directory; of another host's repository: that host's"`
}

// DefaultConfig has no directory and no repository: volumes of containers are found and can be snapshotted.
func DefaultConfig() Config { return Config{} }

var plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,31}$`)

// Validate names every problem with its key.
func (c Config) Validate() error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("volumes.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	place := func(list string, i int, name, path string, names, paths map[string]int) {
		at := fmt.Sprintf("%s[%d]", list, i)
		if !plainName.MatchString(name) {
			problem(at+".name", "expected 1 to 32 of a-z, 0-9, _, . and -, found %q", name)
		} else if j, twice := names[name]; twice {
			problem(at+".name", "%q is %s[%d] already", name, list, j)
		}
		names[name] = i
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			problem(at+".path", "expected an absolute path without . and .. and a / at its end, found %q", path)
		} else if j, twice := paths[path]; twice {
			problem(at+".path", "%s is %s[%d] already", path, list, j)
		}
		paths[path] = i
	}
	names, paths := map[string]int{}, map[string]int{}
	for i, d := range c.Directories {
		place("directories", i, d.Name, d.Path, names, paths)
		for j, r := range c.Repositories {
			if within(r.Path, d.Path) {
				problem(fmt.Sprintf("directories[%d].path", i), "repositories[%d] lies in it: it would be backed up into itself", j)
			}
		}
	}
	names, paths = map[string]int{}, map[string]int{}
	for i, r := range c.Repositories {
		place("repositories", i, r.Name, r.Path, names, paths)
	}
	return errors.Join(problems...)
}

// within tells whether path is dir or below it; both are clean.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
