// Report turns the output of `go test -json` on its standard input into what a person wants to read: each package's
// closing line as it comes, the whole output of what failed, and at the end what was skipped and why.
//
//	go test -json ./... | report [-skipped "what was not even run: why"]
//
// It owns nothing. It exits 1 when anything failed or nothing ran. (Under CI=true a test that lacks a tool fails by
// itself: hosttest.Require.)
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	notRun := flag.String("skipped", "", "what the caller left out, and why")
	flag.Parse()
	s, err := read(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if *notRun != "" {
		s.skipped = append(s.skipped, *notRun)
	}
	s.print(os.Stdout)
	if !s.good() {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type summary struct {
	passed, failed int // tests, not counting subtests
	broken         []string
	skipped        []string // "package: Test: reason"
}

// read prints closing lines and failures to out while they come and gives the sum. Lines that are no events are
// printed: the go command speaks so when it cannot even start.
func read(in io.Reader, out io.Writer) (summary, error) {
	var s summary
	output := map[string][]string{} // by package and test, until its end is known
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			output[key] = append(output[key], e.Output)
			if e.Test == "" && closing(e.Output) {
				fmt.Fprint(out, e.Output)
			}
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass", "fail", "skip":
			s.end(e, output[key], out)
			delete(output, key)
		}
	}
	return s, lines.Err()
}

// closing tells whether a package's line is one of those that `go test` ends it with.
func closing(line string) bool {
	return strings.HasPrefix(line, "ok  ") || strings.HasPrefix(line, "FAIL\t")
}

func (s *summary) end(e event, output []string, out io.Writer) {
	subtest := strings.Contains(e.Test, "/")
	switch {
	case e.Action == "fail":
		s.broken = append(s.broken, strings.TrimSpace(e.Package+" "+e.Test))
		for _, line := range output {
			if !closing(line) {
				fmt.Fprint(out, line)
			}
		}
		if e.Test != "" && !subtest {
			s.failed++
		}
	case e.Test == "": // a package; one without tests is "skipped", which is no news
	case e.Action == "skip":
		s.skipped = append(s.skipped, e.Package+": "+e.Test+": "+reason(output))
	case !subtest:
		s.passed++
	}
}

// reason is what the test said when it was skipped, without file and line.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if _, said, ok := strings.Cut(line, ".go:"); ok {
			if _, said, ok := strings.Cut(said, ": "); ok {
				return said
			}
		}
	}
	return "it gave no reason"
}

func (s *summary) good() bool {
	return len(s.broken) == 0 && s.passed > 0
}

func (s *summary) print(out io.Writer) {
	slices.Sort(s.skipped)
	if len(s.skipped) > 0 {
		fmt.Fprintln(out, "\nskipped:")
		for _, line := range s.skipped {
			fmt.Fprintln(out, "  "+line)
		}
	}
	if len(s.broken) > 0 {
		fmt.Fprintln(out, "\nfailed:")
		for _, name := range s.broken {
			fmt.Fprintln(out, "  "+name)
		}
	}
	fmt.Fprintf(out, "\n%d tests passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
}
