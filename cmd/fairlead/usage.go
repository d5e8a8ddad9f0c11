package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/metrics/history"
)

const usageHelp = `fairlead usage --since T [--json]

What each container used since then: CPU seconds, memory held (GiB for so many hours), bytes of block I/O and network.
T is how long ago (90m, 24h, 7d), a day (2026-11-20) or a moment (2026-11-20T08:00:00Z). Records are by the slot, ten
minutes by default. A row with "!" is incomplete: more was used than it says; below the table is what is not in, and
--json names it row by row. Needs metrics.history.on. Example:

  fairlead usage --since 24h`

func runUsage(e env, args []string) error {
	f := newFlags(e, "usage", usageHelp).client()
	since := f.String("since", "24h", "since `when`: 90m, 7d, 2026-11-20, or a moment as in RFC 3339")
	if err := f.parse(args); err != nil {
		return err
	}
	now := time.Now()
	from, err := parseSince(*since, now)
	if err != nil {
		return err
	}
	if from.After(now) {
		return misuse("--since: %s is yet to come", *since)
	}
	var report history.Report
	printed, err := f.ask(e, "/v1/usage?since="+url.QueryEscape(from.UTC().Format(time.RFC3339)), &report)
	if err != nil || printed {
		return err
	}
	if report.From.IsZero() {
		fmt.Fprintln(e.stdout, "nothing has been recorded yet; the first sample is taken at the next full minute")
		return nil
	}
	note := ""
	if !report.Whole {
		note = ", where the records begin"
	}
	fmt.Fprintf(e.stdout, "from %s%s to %s\n", report.From.Local().Format("2006-01-02 15:04"), note, report.To.Local().Format("15:04:05"))
	var out [][]string
	for _, r := range report.Rows {
		mark := ""
		if r.Incomplete {
			mark = "!"
		}
		out = append(out, []string{
			clip(display(r.Who), 24) + mark, r.ID.Short(), cpuSeconds(r.CPUSeconds), fmt.Sprintf("%.3f", r.MemoryByteSeconds/(1<<30)/3600),
			bytesCell(r.BytesRead), bytesCell(r.BytesWritten), bytesCell(r.BytesReceived), bytesCell(r.BytesSent),
		})
	}
	table(e.stdout, "NAME ID CPU-S GIB-H READ WRITTEN RECV SENT", out)
	fmt.Fprint(e.stdout, lacking(report.Rows))
	return nil
}

// lacking says what is not in the rows that are marked; nothing when all are whole.
func lacking(rows []history.Row) string {
	count := map[string]int{}
	for _, r := range rows {
		for _, what := range r.Missing {
			count[what]++
		}
	}
	var said []string
	for _, m := range []struct{ what, words string }{
		{history.NoBegin, "ran before the records begin"}, {history.NoEnd, "ended unseen"}, {history.Reset, "had a counter go back"},
		{history.NoMemory, "had no known memory for a time"}, {history.NoNetwork, "ended, and what they sent last is unknown"},
	} {
		if n := count[m.what]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, m.words))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return wrap("! more was used than the row says: "+strings.Join(said, "; "), 0, 80)
}

// parseSince reads what people write for a moment in the past.
func parseSince(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 100_000 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, misuse("--since: expected 90m, 24h, 7d, 2026-11-20 or 2026-11-20T08:00:00Z, found %q", text)
}

func display(w history.Who) string {
	if w.Pod != "" {
		return w.Pod + "/" + w.Container
	}
	return w.Name
}

func cpuSeconds(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", *v)
}

func bytesCell(v *uint64) string {
	if v == nil {
		return ""
	}
	return size(*v)
}

// historyRoutes answer what fairlead usage and fairlead advise ask. h is nil when the history is off.
func historyRoutes(s *api.Server, h *history.History) {
	off := api.Errorf(http.StatusNotFound, "no history is kept: set metrics.history: {on: true} and restart the agent")
	s.Handle("GET /v1/usage", func(r *http.Request) (any, error) {
		since, err := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
		switch {
		case err != nil:
			return nil, api.Errorf(http.StatusBadRequest, "since: expected a moment such as 2026-11-20T08:00:00Z: %v", err)
		case h == nil:
			return nil, off
		}
		return h.Usage(since)
	})
	s.Handle("GET /v1/advice", func(*http.Request) (any, error) {
		if h == nil {
			return nil, off
		}
		return h.Advice()
	})
}
