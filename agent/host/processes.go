package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one living process as /proc shows it.
type Process struct {
	PID    int
	Parent int
	Start  uint64 // clock ticks after boot; with PID it names one process for ever
	Comm   string
}

// Processes gives every process that has not ended; zombies have. It reads one small file each.
func (r Root) Processes() ([]Process, error) {
	entries, err := os.ReadDir(r.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := r.Process(pid); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// Process gives one process; false when it has ended.
func (r Root) Process(pid int) (Process, bool) {
	b, err := os.ReadFile(filepath.Join(r.Proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return Process{}, false
	}
	p, alive := parseStat(b)
	return p, alive && p.PID == pid
}

// parseStat reads "pid (comm) state ppid ... starttime" (proc_pid_stat(5)). The name may hold spaces and parentheses,
// so the last one counts.
func parseStat(text []byte) (Process, bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return Process{}, false
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	parent, err2 := strconv.Atoi(fields[1])
	start, err3 := strconv.ParseUint(fields[19], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return Process{}, false
	}
	return Process{PID: pid, Parent: parent, Start: start, Comm: string(text[open+1 : end])}, true
}

// Args gives a process's command line; nothing for one that has ended and for kernel threads.
func (r Root) Args(pid int) []string {
	b, err := os.ReadFile(filepath.Join(r.Proc, strconv.Itoa(pid), "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// ByNetNS gives the processes of every network namespace. It reads one link for each process of the host.
func (r Root) ByNetNS() (map[NetNS][]int, error) {
	all, err := r.Processes()
	if err != nil {
		return nil, err
	}
	in := map[NetNS][]int{}
	for _, p := range all {
		if ns, err := r.NetNS(p.PID); err == nil { // else it has ended
			in[ns] = append(in[ns], p.PID)
		}
	}
	return in, nil
}

// In gives the processes that live in a network namespace. It reads one link for each process of the host.
func (r Root) In(ns NetNS) ([]int, error) {
	all, err := r.Processes()
	if err != nil {
		return nil, err
	}
	var in []int
	for _, p := range all {
		if of, err := r.NetNS(p.PID); err == nil && of == ns {
			in = append(in, p.PID)
		}
	}
	return in, nil
}
