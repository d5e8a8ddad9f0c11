// Package host answers what the kernel of this host says about processes, namespaces and cgroups, through roots that
// can be moved: in a pod /proc and /sys of the host are mounted elsewhere, in a test they are recorded.
//
// It owns the budget of file descriptors. It stores nothing.
package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Root says where the host's proc and sysfs are mounted.
type Root struct {
	Proc string // default /proc
	Sys  string // default /sys
}

// DefaultRoot is the host seen from the host itself.
func DefaultRoot() Root { return Root{Proc: "/proc", Sys: "/sys"} }

// BootID gives the random id of this boot; see random(4). State that did not survive a reboot is told by it.
func (r Root) BootID() (string, error) {
	b, err := os.ReadFile(filepath.Join(r.Proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// NetNS identifies a network namespace for as long as it lives: device and inode of its nsfs file (namespaces(7)).
// The kernel may give the inode number of a dead namespace to a new one.
type NetNS struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// IsZero tells whether ns is unknown.
func (ns NetNS) IsZero() bool { return ns == NetNS{} }

func (ns NetNS) String() string { return fmt.Sprintf("net:[%d]", ns.Ino) }

// NetNS gives the network namespace of a process.
func (r Root) NetNS(pid int) (NetNS, error) { return StatNetNS(r.NetNSPath(pid)) }

// NetNSPath gives the file by which the network namespace of a process can be opened.
func (r Root) NetNSPath(pid int) string {
	return filepath.Join(r.Proc, strconv.Itoa(pid), "ns/net")
}

// StatNetNS gives the network namespace behind a path such as /proc/PID/ns/net or a bind mount of it.
func StatNetNS(path string) (NetNS, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return NetNS{}, fmt.Errorf("stat network namespace: %w", &os.PathError{Op: "stat", Path: path, Err: err})
	}
	return NetNS{Dev: st.Dev, Ino: st.Ino}, nil
}
