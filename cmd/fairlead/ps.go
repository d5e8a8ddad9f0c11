package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const psHelp = `fairlead ps [--all] [--json]

Containers of every runtime: state, address, CPU in use, memory against its limit, as the host measures them. Example:

  fairlead ps --all`

func runPs(e env, args []string) error {
	f := newFlags(e, "ps", psHelp).client()
	all := f.Bool("all", false, "also containers without a process, and pods' sandboxes")
	if err := f.parse(args); err != nil {
		return err
	}
	var rows []psRow
	printed, err := f.ask(e, "/v1/containers", &rows)
	if err != nil || printed {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r psRow) bool { return !*all && (!r.Alive() || r.Sandbox) })
	slices.SortFunc(rows, func(a, b psRow) int { return strings.Compare(a.Name, b.Name) })
	var out [][]string
	for _, r := range rows {
		out = append(out, []string{r.ID.Short(), r.Name, string(r.Runtime), string(r.State), join(r.Addrs), cpuCell(r), memoryCell(r), r.Image})
	}
	table(e.stdout, "ID NAME RUNTIME STATE ADDRESS CPU MEMORY IMAGE", out)
	return nil
}

// cpuCell is cores in use, and the limit where there is one.
func cpuCell(r psRow) string {
	if r.CPUs == nil {
		return ""
	}
	cell := fmt.Sprintf("%.2f", *r.CPUs)
	if r.Usage.CPULimit != nil {
		cell += " of " + strconv.FormatFloat(*r.Usage.CPULimit, 'f', -1, 64)
	}
	return cell
}

func memoryCell(r psRow) string {
	if r.Usage == nil || r.Usage.MemoryBytes == nil {
		return ""
	}
	cell := size(*r.Usage.MemoryBytes)
	if r.Usage.MemoryLimitBytes != nil {
		cell += " of " + size(*r.Usage.MemoryLimitBytes)
	}
	return cell
}
