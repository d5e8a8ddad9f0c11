package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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
	header, out := fit(strings.Fields("ID NAME RUNTIME STATE ADDRESS CPU MEMORY IMAGE"), out, screenWidth(e.stdout))
	table(e.stdout, strings.Join(header, " "), out)
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

// screenWidth is that of the terminal, else what COLUMNS says, else 0: no bound, for scripts.
func screenWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		width, _ := dimensions(f)
		return width
	}
	n, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// fit shortens or leaves out columns of fairlead ps until a line fits a screen: first images, of which the end tells most,
// then names, then the runtime. A width of 0 is no bound.
func fit(header []string, rows [][]string, width int) ([]string, [][]string) {
	for _, step := range []struct {
		column string
		least  int // 0 leaves it out
	}{{"IMAGE", 16}, {"NAME", 20}, {"IMAGE", 0}, {"NAME", 12}, {"RUNTIME", 0}, {"ADDRESS", 15}, {"ID", 8}, {"NAME", 6}} {
		i := slices.Index(header, step.column)
		over, widest := lineWidth(header, rows)-width, columnWidth(header, rows, i)
		switch {
		case width == 0 || over <= 0:
			return header, rows
		case step.least == 0:
			header = slices.Delete(slices.Clone(header), i, i+1)
			for j := range rows {
				rows[j] = slices.Delete(rows[j], i, i+1)
			}
			continue
		}
		shorten := clip
		if step.column == "IMAGE" {
			shorten = clipFront
		}
		for _, r := range rows {
			r[i] = shorten(r[i], max(step.least, widest-over))
		}
	}
	return header, rows
}

func columnWidth(header []string, rows [][]string, i int) int {
	widest := len(header[i])
	for _, r := range rows {
		widest = max(widest, utf8.RuneCountInString(r[i]))
	}
	return widest
}

func lineWidth(header []string, rows [][]string) int {
	const gap = 2
	sum := -gap
	for i := range header {
		sum += columnWidth(header, rows, i) + gap
	}
	return sum
}

// clipFront keeps the end of text.
func clipFront(text string, width int) string {
	runes := []rune(text)
	if len(runes) > width {
		return "~" + string(runes[len(runes)-width+1:])
	}
	return text
}
