package container

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
)

// ociSpec is what we read of an OCI runtime specification.
type ociSpec struct {
	Mounts []struct {
		Destination, Type, Source string
		Options                   []string
	}
	Linux struct {
		Resources struct {
			Memory struct{ Limit int64 }
			CPU    struct{ Quota, Period int64 }
			Pids   struct{ Limit int64 }
		}
	}
}

func parseSpec(text []byte) (s ociSpec, err error) {
	if len(text) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read OCI specification: %w", err)
	}
	return s, nil
}

func (s *ociSpec) limits() Limits {
	r := s.Linux.Resources
	return Limits{MemoryBytes: max(0, r.Memory.Limit), CPUs: cpus(r.CPU.Quota, r.CPU.Period), Pids: max(0, r.Pids.Limit)}
}

// mounts gives the binds, and the tmpfs that a person asked for: not those that every container has.
func (s *ociSpec) mounts() []Mount {
	var out []Mount
	for _, m := range s.Mounts {
		ro := slices.Contains(m.Options, "ro")
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case bind && path.IsAbs(m.Source):
			out = append(out, Mount{Type: "bind", Source: m.Source, Destination: m.Destination, ReadOnly: ro})
		case m.Type == "tmpfs" && !slices.Contains([]string{"/dev", "/dev/shm", "/run", "/sys/fs/cgroup"}, path.Clean(m.Destination)):
			out = append(out, Mount{Type: "tmpfs", Destination: m.Destination, ReadOnly: ro})
		}
	}
	return out
}
