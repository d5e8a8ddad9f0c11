package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fairlead runs a command line and gives what it printed and its exit code.
func fairlead(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(env{&out, &err}, args)
	return out.String(), err.String(), code
}

func TestBrokenFilesAreRefusedWithLineKeyAndWhatWasExpected(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		out, said, code := fairlead(t, "config", "check", "--config", file)
		if diff := cmp.Diff(string(want), said); diff != "" || code != 1 || out != "" {
			t.Errorf("%s: exit %d, printed %q, said (-want +got):\n%s", file, code, out, diff)
		}
	}
}

func TestPrintedConfigurationReadsTheSame(t *testing.T) {
	for _, file := range []string{"testdata/whole.yaml", "testdata/empty.yaml"} {
		first, said, code := fairlead(t, "config", "print", "--config", file)
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", file, code, said)
		}
		again := filepath.Join(t.TempDir(), "again.yaml")
		if err := os.WriteFile(again, []byte(first), 0o600); err != nil {
			t.Fatal(err)
		}
		second, said, code := fairlead(t, "config", "print", "--config", again)
		if diff := cmp.Diff(first, second); diff != "" || code != 0 {
			t.Errorf("%s: exit %d, %s (-first +second):\n%s", file, code, said, diff)
		}
	}
}

func TestEveryKeyIsDocumentedByConfigPrint(t *testing.T) {
	out, _, _ := fairlead(t, "config", "print", "--config", "testdata/whole.yaml")
	previous := ""
	for line := range strings.Lines(out) {
		key := strings.TrimSpace(line)
		documented := strings.Contains(line, "#") || strings.HasPrefix(strings.TrimSpace(previous), "#")
		// Keys of the second and later members of a list are as those of the first.
		if !documented && !strings.HasPrefix(key, "#") && strings.Contains(key, ":") && strings.Count(out, strings.SplitN(strings.TrimPrefix(key, "- "), ":", 2)[0]+":") < 2 {
			t.Errorf("no comment at %q", key)
		}
		previous = line
	}
}

func TestCommandsSayInOneLineThatNoDaemonRuns(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	for _, args := range [][]string{{"status"}, {"ps"}, {"net", "ls"}, {"logs", "ls"}, {"doctor"}} {
		out, said, code := fairlead(t, append(args, "--socket", socket)...)
		want := "fairlead agent is not running (no answer on " + socket + ")\n"
		if code != 1 || out != "" || said != want {
			t.Errorf("%v: exit %d, printed %q, said %q", args, code, out, said)
		}
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, c := range commands() {
		if c.name == "version" {
			continue
		}
		out, said, code := fairlead(t, c.name, "--help")
		if code != 0 || said != "" || !strings.Contains(out, "xample") || !strings.Contains(out, "fairlead "+c.name) {
			t.Errorf("%s --help: exit %d, said %q, printed\n%s", c.name, code, said, out)
		}
	}
}

func TestMisuseIsExitCodeTwo(t *testing.T) {
	for _, args := range [][]string{{"statsu"}, {"status", "now"}, {"net"}, {"net", "rm"}, {"ps", "--colour"}, {"config"}} {
		out, said, code := fairlead(t, args...)
		if code != 2 || out != "" || strings.Count(said, "\n") != 1 {
			t.Errorf("%v: exit %d, printed %q, said %q", args, code, out, said)
		}
	}
}

func TestSizesAreReadable(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1536: "1.5KiB", 64 << 20: "64.0MiB", 3 << 40: "3.0TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
