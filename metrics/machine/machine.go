// Package machine tells what the host itself has: processors, memory, swap and the ids it goes by.
//
// It owns nothing and stores nothing but the processor topology of the last look, which it reads again when the set of
// online processors has changed.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Facts is what the machine has. A nil number and an empty id are unknown.
type Facts struct {
	Cores, PhysicalCores, Sockets *uint64 // Cores counts hardware threads that are online
	MemoryBytes, SwapBytes        *uint64
	SwapFreeBytes                 *uint64
	MachineID, SystemUUID, BootID string
}

// Reader reads Facts. It is safe for concurrent use.
type Reader struct {
	root host.Root

	mu       sync.Mutex
	online   string
	topology topology
	ids      *Facts
}

// NewReader makes a Reader of the host behind root. It reads nothing yet.
func NewReader(root host.Root) *Reader { return &Reader{root: root} }

type topology struct{ cores, physical, sockets uint64 }

// Read gives the facts as they are now. Facts that could not be read are unknown, and the error names each file.
func (r *Reader) Read() (Facts, []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var f Facts
	var errs []error
	if r.ids == nil {
		r.ids = r.readIDs()
	}
	f.MachineID, f.SystemUUID, f.BootID = r.ids.MachineID, r.ids.SystemUUID, r.ids.BootID
	if err := r.readTopology(&f); err != nil {
		errs = append(errs, err)
	}
	path := filepath.Join(r.root.Proc, "meminfo")
	text, err := os.ReadFile(path)
	if err == nil {
		f.MemoryBytes, f.SwapBytes, f.SwapFreeBytes = parseMeminfo(text)
		if f.MemoryBytes == nil {
			err = fmt.Errorf("parse %s: no MemTotal", path)
		}
	}
	if err != nil {
		errs = append(errs, err)
	}
	return f, errs
}

// readIDs reads what cannot change before the next boot. The machine id is a file of the host's /etc, which is seen
// through process 1 where the agent has a root of its own.
func (r *Reader) readIDs() *Facts {
	first := func(paths ...string) string {
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil {
				return strings.ToValidUTF8(strings.TrimSpace(string(b)), "")
			}
		}
		return ""
	}
	boot, _ := r.root.BootID()
	ids := []string{filepath.Join(r.root.Proc, "1/root/etc/machine-id"), filepath.Join(r.root.Proc, "1/root/var/lib/dbus/machine-id")}
	if r.root.Proc == "/proc" {
		ids = append(ids, "/etc/machine-id") // on the host itself, where not even root may look through process 1 (hardened kernels)
	}
	return &Facts{
		MachineID: first(ids...),
		SystemUUID: first(append([]string{filepath.Join(r.root.Sys, "class/dmi/id/product_uuid"),
			filepath.Join(r.root.Proc, "device-tree/vm,uuid")}, ids...)...), // as cAdvisor does
		BootID: boot,
	}
}

func (r *Reader) readTopology(f *Facts) error {
	dir := filepath.Join(r.root.Sys, "devices/system/cpu")
	text, err := os.ReadFile(filepath.Join(dir, "online"))
	if err != nil {
		return err
	}
	if online := strings.TrimSpace(string(text)); online != r.online {
		cpus, err := parseCPUList(online)
		if err != nil {
			return fmt.Errorf("parse %s: %w", filepath.Join(dir, "online"), err)
		}
		r.topology = readTopology(dir, cpus)
		r.online = online
	}
	t := r.topology // a copy: what was handed out never changes
	f.Cores = &t.cores
	if t.physical > 0 {
		f.PhysicalCores, f.Sockets = &t.physical, &t.sockets
	}
	return nil
}

func readTopology(dir string, cpus []int) topology {
	type core struct{ pkg, id string }
	cores, packages := map[core]bool{}, map[string]bool{}
	for _, n := range cpus {
		at := filepath.Join(dir, "cpu"+strconv.Itoa(n), "topology")
		pkg, err1 := os.ReadFile(filepath.Join(at, "physical_package_id"))
		id, err2 := os.ReadFile(filepath.Join(at, "core_id"))
		if err1 != nil || err2 != nil {
			return topology{cores: uint64(len(cpus))} // some machines do not say
		}
		cores[core{string(pkg), string(id)}] = true
		packages[string(pkg)] = true
	}
	return topology{uint64(len(cpus)), uint64(len(cores)), uint64(len(packages))}
}

// parseCPUList reads the kernel's list form: "0-3,8".
func parseCPUList(list string) ([]int, error) {
	const most = 1 << 16 // more than any kernel can be built for; keeps garbage from eating memory
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(to)
		}
		if err != nil || a < 0 || b < a || b >= most || len(out) > most {
			return nil, fmt.Errorf("%q is no list of processors", list)
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseMeminfo finds the totals, and the swap that is free, in the text of /proc/meminfo, which counts in units of 1024 bytes.
func parseMeminfo(text []byte) (memory, swap, swapFree *uint64) {
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) != 3 || string(f[2]) != "kB" {
			continue
		}
		n, err := strconv.ParseUint(string(f[1]), 10, 54)
		if err != nil {
			continue
		}
		n *= 1024
		switch string(f[0]) {
		case "MemTotal:":
			memory = &n
		case "SwapTotal:":
			swap = &n
		case "SwapFree:":
			swapFree = &n
		}
	}
	return memory, swap, swapFree
}
