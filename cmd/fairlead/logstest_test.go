package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const tried = `2026-11-21T09:20:00Z stdout F {"level":"info","msg":"sold","ts":1795252800.5}
2026-11-21T09:20:00Z stderr F panic: closed
2026-11-21T09:20:00Z stdout F {"level":"debug","msg":"x"}
2026-11-21T09:20:00Z stderr F 
2026-11-21T09:20:00Z stderr F goroutine 1 [running]:
torn
`

func TestLogsTestShowsWhatARuleWouldDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(file, []byte(tried), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"logs", "test", "--format", "cri", "--label", "fairlead.logs.multiline=go",
		"--rule", "parse: json, message: msg, time: ts, drop: [{field: level, match: debug}]"}
	out, said, code := fairlead(t, append(args, file)...)
	want := `1         kept              2026-11-21T09:20:00.500Z sold
                            level = info
3         dropped by rule   2026-11-21T09:20:00.000Z x
                            level = debug
6         kept, not cri     torn
2-5       kept              2026-11-21T09:20:00.000Z panic: closed
                            
                            goroutine 1 [running]:

6 lines: 3 records kept, 1 dropped by rule, 2 lines joined, 2 parsed, 2 not parsed, 3 without their time, 1 malformed
`
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit %d, said %q (-want +got):\n%s", code, said, diff)
	}

	out, said, code = fairlead(t, append(append(args, "--json"), file)...)
	var last struct{ Counts map[string]uint64 }
	all := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil || len(all) != 5 || code != 0 || last.Counts["kept"] != 3 || last.Counts["lines"] != 6 {
		t.Errorf("exit %d, said %q, %v: %s", code, said, err, out)
	}
	var first trialRecord
	if err := json.Unmarshal([]byte(all[0]), &first); err != nil || first.Text != "sold" || first.Fields["level"] != "info" || first.First != 1 {
		t.Errorf("%v: %s", err, all[0])
	}
}

func TestLogsTestNamesWhatIsWrongWithARule(t *testing.T) {
	for rule, want := range map[string]string{
		"multiline: (":             `--rule[0].multiline: "(" is not valid, expected a regular expression`,
		"rate: 5":                  `--rule[0].rate: "5" is not valid, expected a number of records and /s`,
		"colour: red":              "colour",
		"multiline: [go":           "--rule",
		"sample: many":             "sample",
		"parse: json, time_format": "time_format",
	} {
		out, said, code := fairlead(t, "logs", "test", "--rule", rule, "/dev/null")
		if code != 1 || out != "" || !strings.Contains(said, want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit %d, printed %q, said %q, want one line with %s", rule, code, out, said, want)
		}
	}
	if _, said, code := fairlead(t, "logs", "test", "--format", "xml", "f"); code != 2 || !strings.Contains(said, "plain, cri or docker-json") {
		t.Errorf("exit %d, said %q", code, said)
	}
}
