// Package detect finds what no part of the agent owns and what containers leave behind: shims, runtimes' state
// directories, mounts, cgroups, namespace files, other people's links and leases. Each detector lists what is there, of living
// and dead containers alike, with what the thing itself shows of its container; package reap decides. Nothing is
// removed but by Release, which looks once more and fails rather than take what is in use.
//
// It stores nothing. A Release that was cut off in the middle can be called again.
package detect

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// Host says where things are on this host. Every path can be moved; the network namespace is that of the agent.
type Host struct {
	host.Root
	Run string // the host's /run
	// Containerd are its state and root directories.
	Containerd []string
	// Runc are the state directories (--root) of runc and its like, with a directory for each container.
	Runc []RuncRoot
	// Leases are the data directories of the CNI plugin host-local, with a directory for each network.
	Leases []string
	// OurGroups are the link groups of the agent's own parts.
	OurGroups []uint32
}

// RuncRoot is one --root of runc.
type RuncRoot struct {
	Dir       string
	Runtime   string // kind of the runtime above: "containerd", "docker"; empty for runc used by hand
	Namespace bool   // a level of containerd namespaces lies between
}

// DefaultHost is a host with runtimes in their usual places. more are further directories of containerd.
func DefaultHost(root host.Root, run string, more ...string) Host {
	h := Host{Root: root, Run: run, Leases: []string{"/var/lib/cni/networks"}, Containerd: []string{
		filepath.Join(run, "containerd"), "/var/lib/containerd",
		filepath.Join(run, "docker/containerd/daemon"), "/var/lib/docker/containerd/daemon",
		filepath.Join(run, "k3s/containerd"), "/var/lib/rancher/k3s/agent/containerd",
	}}
	for _, dir := range more {
		if !slices.Contains(h.Containerd, dir) {
			h.Containerd = append(h.Containerd, dir)
		}
	}
	for _, dir := range h.Containerd {
		h.Runc = append(h.Runc, RuncRoot{filepath.Join(dir, "runc"), "containerd", true})
	}
	// Containerd's shims use this root wherever containerd's own state is.
	if own := filepath.Join(run, "containerd/runc"); !slices.ContainsFunc(h.Runc, func(r RuncRoot) bool { return r.Dir == own }) {
		h.Runc = append(h.Runc, RuncRoot{own, "containerd", true})
	}
	h.Runc = append(h.Runc,
		RuncRoot{filepath.Join(run, "docker/runtime-runc"), "docker", true},
		RuncRoot{filepath.Join(run, "runc"), "", false})
	return h
}

// Owners gives every detector by its name.
func Owners(h Host) map[string]reap.Owner {
	return map[string]reap.Owner{
		"shims":   shims{h},
		"netns":   namespaces{h},
		"links":   links{h},
		"leases":  leases{h},
		"mounts":  mounts{h},
		"cgroups": cgroups{h},
		"bundles": bundles{h},
		"runc":    runc{h},
	}
}

// claimOf is the claim of a container in a containerd namespace. What Docker keeps in its own is Docker's to name.
func claimOf(runtime, namespace, id string) reap.Claim {
	cl := reap.Claim{Runtimes: []string{runtime}, Namespace: namespace, ID: idOf(id)}
	if namespace == "moby" {
		cl.Runtimes = []string{"docker"}
	}
	return cl
}

// subdirs gives the names of the directories in dir that are not hidden; none when dir is not there.
func subdirs(dir string) []string {
	entries, _ := os.ReadDir(dir) // a directory that cannot be read shows nothing, and nothing is kept
	var out []string
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' {
			out = append(out, e.Name())
		}
	}
	return out
}

// quarantineName is the directory, hidden from runtimes that list theirs, into which state directories and leases are moved.
const quarantineName = ".fairlead-quarantine"

// instance tells a file from a later one of the same name.
func instance(path string) (string, os.FileInfo, bool) {
	st, err := os.Lstat(path)
	if err != nil {
		return "", nil, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil, false
	}
	return fmtInstance(sys.Dev, sys.Ino), st, true
}
