// Package daemons starts real container daemons for tests and for the demo: containerd, Docker Engine, Podman's API
// service, each from Debian's packages, with directories and sockets of its own.
//
// A daemon started without a Prefix runs in a mount namespace of its own whose /run is DIR/run, so what container
// software mounts and writes at fixed paths (/run/containerd/s, /run/libpod, /opt/containerd) stays in there. Stop ends the
// daemon, its shims and its containers, each by pid, and removes their cgroups; files below Dir are the caller's to
// remove. When the starting process dies, the daemon is killed with it unless Keep is set; its containers are not.
package daemons

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Options say where a daemon runs and keeps its files.
type Options struct {
	// Dir holds all files of the daemon: logs, sockets, images, containers. It must exist, must not lie on overlayfs
	// (container roots are overlays themselves) nor below /run, and should be short: a socket's path has 107 bytes.
	Dir string
	// Prefix is the beginning of the command line that brings a command to where the daemon is to run, such as
	// "nsenter -t PID -n -m --". It must exec, not fork. Empty: a new mount namespace with an own /run.
	Prefix []string
	// Keep lets the daemon outlive the process that started it.
	Keep bool

	// The rest is for containerd, or for the containerd inside Docker.

	Root, State, Address string // default Dir/root, Dir/state, Dir/containerd.sock; as the daemon sees them
	CRI                  bool   // switch containerd's CRI plugin on; it answers on the same Address
	SandboxImage         string // CRI's pause image; default the busybox image of BusyboxImage
	Containerd           string // for Dockerd: the address of a running containerd to use instead of an own one
}

func (o Options) check() error {
	if !filepath.IsAbs(o.Dir) || strings.HasPrefix(o.Dir, "/run/") {
		return fmt.Errorf("directory %q is not absolute or lies below /run", o.Dir) // which is covered
	}
	if os.Geteuid() != 0 {
		return errors.New("daemons need root")
	}
	return os.MkdirAll(filepath.Join(o.Dir, "run"), 0o755)
}

func (o Options) cgroup() string { return "/fairlead" + strings.ReplaceAll(o.Dir, "/", "-") }

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
