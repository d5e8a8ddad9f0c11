package logship

import (
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"strconv"
	"strings"
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
}

// File is a glob of files of the host.
type File struct {
	Path string `yaml:"path" doc:"absolute; * ? [] in any component"`
}

// SinkConfig is one sink.
type SinkConfig struct {
	Name    string `yaml:"name" doc:"positions are kept under it: another name is another sink"`
	Type    string `yaml:"type" doc:"syslog (RFC 5424 over TCP) or file"`
	Address string `yaml:"address" doc:"syslog: tcp://host:port"`
	Path    string `yaml:"path" doc:"file: absolute"`
	// From is where a sink that was just added begins in streams that are known already: "now", where the furthest of
	// the other sinks stands, or "start", with all that still lies there. New streams always begin at their start, and
	// so does everything on the first start of an agent.
	From string `yaml:"from" doc:"where a sink that was just added begins in known streams: now (empty) or start"`
}

// DefaultConfig follows the containers' own output and files and ships to nowhere until a sink is named.
func DefaultConfig() Config { return Config{Pins: "auto"} }

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
	names, paths := map[string]bool{}, map[string]bool{}
	for i, s := range c.Sinks {
		key := fmt.Sprintf("sinks[%d].", i)
		if !sinkName(s.Name) || names[s.Name] {
			bad(key+"name", s.Name, "a name of its own from letters, digits, - and _")
		}
		names[s.Name] = true
		switch s.Type {
		case "syslog":
			if _, err := s.hostPort(); err != nil {
				bad(key+"address", s.Address, "tcp://host:port")
			}
			if s.Path != "" {
				bad(key+"path", s.Path, "nothing: a syslog sink has an address")
			}
		case "file":
			if !filepath.IsAbs(s.Path) || paths[filepath.Clean(s.Path)] {
				bad(key+"path", s.Path, "an absolute path that no other sink writes")
			}
			paths[filepath.Clean(s.Path)] = true
			if s.Address != "" {
				bad(key+"address", s.Address, "nothing: a file sink has a path")
			}
			for j, f := range c.Files {
				if ok, _ := path.Match(f.Path, s.Path); ok {
					bad(key+"path", s.Path, fmt.Sprintf("a path that files[%d] does not follow: its lines would feed themselves", j))
				}
			}
		default:
			bad(key+"type", s.Type, "syslog or file")
		}
		if s.From != "" && s.From != "now" && s.From != "start" {
			bad(key+"from", s.From, "now or start")
		}
	}
	return errors.Join(errs...)
}

func sinkName(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// hostPort takes the address apart.
func (s SinkConfig) hostPort() (string, error) {
	rest, ok := strings.CutPrefix(s.Address, "tcp://")
	host, port, err := net.SplitHostPort(rest)
	if n, e := strconv.ParseUint(port, 10, 16); !ok || err != nil || e != nil || n == 0 || host == "" {
		return "", fmt.Errorf("address %q: expected tcp://host:port", s.Address)
	}
	return rest, nil
}
