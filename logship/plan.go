package logship

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// LabelLogs is the container label with globs of files inside it, divided by commas.
const LabelLogs = "fairlead.logs"

// output gives the stream of a container's stdout and stderr. ok is false when its runtime writes none that we read.
func output(host string, c *container.Container) (key string, src ledger.Source, ok bool) {
	switch c.Log.Format {
	case container.DockerJSON, container.CRI, container.Plain:
	default:
		return "", src, false
	}
	if c.Log.Path == "" || c.Sandbox {
		return "", src, false
	}
	key = string(c.Runtime) + "/" + string(c.ID)
	return key, ledger.Source{Root: tail.Host, Path: c.Log.Path, Format: c.Log.Format, Origin: origin(host, c),
		Full: c.Log.MaxBytes, Empties: c.Log.Truncates}, true
}

// origin describes a container on every record. Two containers never share one.
func origin(host string, c *container.Container) *sink.Origin {
	o := &sink.Origin{Host: host, Runtime: string(c.Runtime), ID: string(c.ID), Name: c.Name, Image: c.Image, Labels: c.Labels,
		Namespace: c.Pod.Namespace, Pod: c.Pod.Name}
	for _, a := range c.Attachments {
		if len(a.Addrs) > 0 {
			o.Addr = a.Addrs[0]
			break
		}
	}
	return o
}

// inside is one glob of files inside a container, as it is reached from the host.
type inside struct {
	root    tail.Root
	pattern string // below root
	strip   string // of a match below root, to be replaced ...
	prefix  string // ... by this, gives the path as the container knows it
}

// insides gives the globs that a container's label asks for, and those that cannot be reached from the host: a volume
// or bind mount is followed at its source, anything else in the overlay's upper directory. The merged root is never
// opened: a descriptor in it would keep the runtime from unmounting it. What lies on a mount that only the container has,
// or in a root without an upper directory, is visited.
func insides(c *container.Container, mounts mounted) (found, visited []inside, unreachable []string) {
	for glob := range strings.SplitSeq(c.Labels[LabelLogs], ",") {
		if glob = strings.TrimSpace(glob); glob == "" {
			continue
		}
		clean := path.Clean(glob)
		if _, err := path.Match(clean, ""); err != nil || !path.IsAbs(clean) {
			unreachable = append(unreachable, glob)
			continue
		}
		at := mounts.at(fixed(clean))
		in, ok := reach(c, clean, at)
		switch {
		case ok:
			found = append(found, in)
		case at.dir == "" || at.waits():
			unreachable = append(unreachable, glob)
		default:
			visited = append(visited, inside{pattern: clean, strip: "/", prefix: "/"})
		}
	}
	return found, visited, unreachable
}

// reach gives a glob as the host has it, when at, where the kernel says that it is mounted, is what the runtime says.
func reach(c *container.Container, glob string, at mountPoint) (inside, bool) {
	fixed := fixed(glob)
	var best *container.Mount
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if below(fixed, m.Destination) && (best == nil || len(m.Destination) > len(best.Destination)) {
			best = m
		}
	}
	if at.dir != "" && at.dir != "/" && (best == nil || path.Clean(best.Destination) != at.dir) {
		return inside{}, false // the container's own mount, of which its runtime does not know
	}
	switch {
	case best == nil && c.Rootfs.Upper != "":
		return inside{root: tail.Root(c.Rootfs.Upper), pattern: glob, strip: "/", prefix: "/"}, true
	case best == nil || best.Source == "" || best.Type == "tmpfs":
		return inside{}, false
	case path.Clean(best.Destination) == glob: // a single file, or a directory that no line comes from
		dir, name := filepath.Split(best.Source)
		return inside{root: tail.Root(dir), pattern: "/" + name, strip: "/" + name, prefix: glob}, true
	}
	dest := path.Clean(best.Destination)
	return inside{root: tail.Root(best.Source), pattern: path.Join("/", strings.TrimPrefix(glob, dest)), strip: "/", prefix: dest}, true
}

// name gives a match's path as the container knows it.
func (in inside) name(match string) string {
	return path.Join(in.prefix, strings.TrimPrefix(match, in.strip))
}

func below(p, dir string) bool {
	dir = path.Clean(dir)
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
