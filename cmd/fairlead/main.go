// Command fairlead is the daemon and what operators do with it. See `fairlead help`.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// version is stamped by the build (-ldflags -X main.version=...).
var version = "devel"

// command is one word of the command line. run gets the words behind it.
type command struct {
	name    string
	summary string
	run     func(env, []string) error
}

// env is what a command sees of the world.
type env struct {
	stdout, stderr io.Writer
}

func commands() []command {
	return []command{
		{"agent", "the daemon: run every part until SIGTERM", runAgent},
		{"status", "parts, runtimes, peers, sinks; exit 1 when something is wrong", runStatus},
		{"ps", "containers: runtime, address, CPU, memory against limit", runPs},
		{"top", "the same, live and sorted; --once prints it once", runTop},
		{"usage", "what each container used since then: CPU, memory, I/O, network", runUsage},
		{"advise", "limits that would fit each container, and why", runAdvise},
		{"net", "networks and ports of the host: net ls | ports | create NAME | rm NAME", runNet},
		{"logs", "what is followed, how far, what is acknowledged: logs ls | tail | verify | test", runLogs},
		{"volume", "volumes, snapshots and backups: volume ls | snapshot | backup | restore | ...", runVolume},
		{"orphans", "what dead containers left: orphans ls | clean [--yes] | undo REF", runOrphans},
		{"doctor", "what this kernel, runtime and network can and cannot do", runDoctor},
		{"config", "config check | config print: validate or show; touch nothing", runConfig},
		{"version", "the version of this build", runVersion},
	}
}

func main() {
	os.Exit(run(env{os.Stdout, os.Stderr}, os.Args[1:]))
}

// run gives the exit code: 0 well, 1 something is wrong or could not be done, 2 the command line is.
func run(e env, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		usage(e.stdout)
		return 0
	}
	if args[0] == "--version" {
		args[0] = "version"
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(e, args[1:])
		var misuse *usageError
		switch {
		case err == nil, errors.Is(err, errHelp):
			return 0
		case errors.As(err, &misuse):
			fmt.Fprintf(e.stderr, "fairlead %s: %v\n", c.name, err)
			return 2
		case errors.Is(err, errUnwell): // said already
			return 1
		}
		fmt.Fprintf(e.stderr, "%v\n", err)
		return 1
	}
	fmt.Fprintf(e.stderr, "fairlead: unknown command %q; `fairlead help` lists them\n", args[0])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "fairlead guides what containers cannot safely do from inside: networks, logs, metrics.\n\nUsage: fairlead COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nEach has --help with an example. Commands find the daemon by --socket S or --config F.\n")
}

func runVersion(e env, args []string) error {
	if len(args) > 0 {
		return misuse("version takes nothing, found %q", strings.Join(args, " "))
	}
	fmt.Fprintln(e.stdout, "fairlead", version)
	return nil
}
