package volumes

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// Kind is how a volume is known.
type Kind string

// The kinds.
const (
	Named     Kind = "named"     // a runtime gave it a name: RUNTIME/NAME
	Bind      Kind = "bind"      // a directory of the host in a container with the label: its path
	HostOwned Kind = "directory" // from the configuration: the name that it has there
)

// Volume is a directory of this host that can be snapshotted and backed up.
type Volume struct {
	Name string `json:"name"` // unique on this host, and the same after a restart
	Kind Kind   `json:"kind"`
	Path string `json:"path"`
	// Users are the containers that have it mounted, running or not.
	Users []User `json:"users"`
	// Backup is what the label fairlead.backup of one of them says.
	Backup string `json:"backup,omitempty"`
}

// User is a container with a volume.
type User struct {
	Runtime  container.Runtime `json:"runtime"`
	ID       container.ID      `json:"id"`
	Name     string            `json:"name"`
	At       string            `json:"at"` // where it is in the container
	ReadOnly bool              `json:"read_only,omitempty"`
}

// backupLabel on a container asks for backups of its volumes and makes its bind mounts volumes.
const backupLabel = "fairlead.backup"

// Discover gives the volumes of this host by name. A volume that no container has any more, and the configuration does
// not name, is not known; its backups are.
func Discover(seen *container.Snapshot, cfg Config) []Volume {
	byName := map[string]*Volume{}
	configured := map[string]*Volume{} // by path
	for _, d := range cfg.Directories {
		v := &Volume{Name: d.Name, Kind: HostOwned, Path: d.Path, Users: []User{}}
		byName[v.Name], configured[v.Path] = v, v
	}
	for i := range seen.Containers {
		c := &seen.Containers[i]
		wanted := wantsBackup(c)
		for _, m := range c.Mounts {
			v := volumeOf(c, m, wanted != "")
			if known := configured[filepath.Clean(m.Source)]; known != nil {
				v = known // the name in the configuration is what people know it by
			}
			if v == nil {
				continue
			}
			if known := byName[v.Name]; known != nil {
				v = known
			}
			byName[v.Name] = v
			v.Users = append(v.Users, User{c.Runtime, c.ID, c.Name, m.Destination, m.ReadOnly})
			if wanted != "" && v.Backup == "" {
				v.Backup = wanted
			}
		}
	}
	out := make([]Volume, 0, len(byName))
	for _, v := range byName {
		slices.SortFunc(v.Users, func(a, b User) int {
			return cmp.Or(cmp.Compare(a.Runtime, b.Runtime), cmp.Compare(a.ID, b.ID), cmp.Compare(a.At, b.At))
		})
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func wantsBackup(c *container.Container) string {
	v := c.Label(backupLabel, "")
	switch strings.ToLower(v) {
	case "false", "no", "off", "never":
		return ""
	}
	return v
}

// volumeOf gives the volume that a mount is of, or nil.
func volumeOf(c *container.Container, m container.Mount, labelled bool) *Volume {
	path := filepath.Clean(m.Source)
	switch {
	case !filepath.IsAbs(path), path == "/":
		return nil
	case m.Name != "":
		return &Volume{Name: string(c.Runtime) + "/" + m.Name, Kind: Named, Path: path}
	case m.Type == "bind" && labelled && !m.ReadOnly && !kernelOwned(path):
		return &Volume{Name: path, Kind: Bind, Path: path}
	}
	return nil
}

// kernelOwned tells whether a bind mount shows the host's machinery and not anybody's data.
func kernelOwned(path string) bool {
	return slices.ContainsFunc([]string{"/proc", "/sys", "/dev", "/run", "/var/run", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"},
		func(dir string) bool { return within(path, dir) })
}
