package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/metrics/history"
)

const adviseHelp = `fairlead advise [--json]

For each container what it used against its limits over metrics.history.keep, the limits that would fit, why, and how
far that can be trusted. Containers of one name are one, however often they were made anew. Needs metrics.history.on.
Example:

  fairlead advise`

func runAdvise(e env, args []string) error {
	f := newFlags(e, "advise", adviseHelp).client()
	if err := f.parse(args); err != nil {
		return err
	}
	var all []history.Advice
	printed, err := f.ask(e, "/v1/advice", &all)
	if err != nil || printed {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(e.stdout, "nothing has been recorded yet; the first sample is taken at the next full minute")
		return nil
	}
	for i, a := range all {
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		fmt.Fprintf(e.stdout, "%s (%s)\n", display(a.Who), a.Runtime)
		if a.CPU != nil {
			printAdvice(e, "cpu", fmt.Sprintf("p50 %.2f  p95 %.2f  max %.2f cores", a.CPU.P50, a.CPU.P95, a.CPU.Max),
				a.CPURequest > 0, fmt.Sprintf("%.2f", a.CPURequest), a.CPULimit > 0, fmt.Sprintf("%.2f", a.CPULimit),
				fmt.Sprintf("throttled %.1f%%, risk %s", a.Throttled*100, a.ThrottleRisk))
			printSuggestion(e, a.CPUSuggestion, func(v float64) string { return fmt.Sprintf("%.2f cores", v) })
		}
		if a.Memory != nil {
			printAdvice(e, "memory", fmt.Sprintf("p50 %s  p95 %s  max %s", size(uint64(a.Memory.P50)), size(uint64(a.Memory.P95)), size(uint64(a.Memory.Max))),
				a.MemoryRequest > 0, size(a.MemoryRequest), a.MemoryLimit > 0, size(a.MemoryLimit),
				fmt.Sprintf("OOM kills %d, risk %s", a.OOMKills, a.OOMRisk))
			printSuggestion(e, a.MemorySuggestion, func(v float64) string { return size(uint64(v)) })
		}
	}
	return nil
}

func printAdvice(e env, what, used string, hasRequest bool, request string, hasLimit bool, limit, risk string) {
	if !hasRequest {
		request = "none"
	}
	if !hasLimit {
		limit = "none"
	}
	fmt.Fprintf(e.stdout, "  %-7s %s\n          request %s, limit %s, %s\n", what, used, request, limit, risk)
}

func printSuggestion(e env, s *history.Suggestion, show func(float64) string) {
	if s != nil {
		fmt.Fprintf(e.stdout, "          suggested limit %s (confidence %s):\n%s", show(s.Limit), s.Confidence, wrap(s.Reason, 10, 80))
	}
}

// wrap breaks text into lines of at most so many columns, each behind so many blanks.
func wrap(text string, indent, width int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch n := utf8.RuneCountInString(word); {
		case column == 0 || column+1+n > width:
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(strings.Repeat(" ", indent) + word)
			column = indent + n
		default:
			b.WriteString(" " + word)
			column += 1 + n
		}
	}
	return b.String() + "\n"
}
