// Command cni kills the plugin and the agent with -9 at every numbered place of ADD and DEL, takes the namespaces away
// without ever calling DEL, and counts what is left on the host: addresses, rules, routes, links, connections and leases.
// Then it adds and removes 200 containers at once. `make soak-cni` runs it; SHORT=1 is the bounded run of CI.
//
// It needs root, works in network namespaces of its own and leaves nothing. The places are those of package crash, in
// builds with the tag crash that it makes itself.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// result is the last line that is printed.
type result struct {
	Soak        string         `json:"soak"`
	Kills       int            `json:"kills"`
	Places      int            `json:"places"`
	FewestKills int            `json:"fewest_kills_of_a_place"`
	Missed      int            `json:"missed"` // the place was not reached, so nothing was killed
	Left        int            `json:"leaked"` // rounds after which something stayed for 30 s
	ByPlace     map[string]int `json:"kills_by_place"`
	Parallel    int            `json:"parallel"` // containers at once
	Rounds      int            `json:"rounds_parallel"`
	Residue     int            `json:"residue"` // of those rounds, after how many the host was not as before
}

func main() {
	short := flag.Bool("short", os.Getenv("SHORT") == "1", "each place once, and 48 at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kills, at := 1000, 200
	if *short {
		kills, at = 0, 48
	}
	out, bad, err := soak(ctx, kills, at)
	for _, line := range bad {
		fmt.Println(line)
	}
	text, encoding := json.Marshal(out)
	if encoding == nil {
		fmt.Println(string(text))
	}
	if err != nil || len(bad) > 0 {
		fmt.Fprintf(os.Stderr, "soak-cni: %d rounds left something behind or failed (%v)\n", len(bad), err)
		os.Exit(1)
	}
}

// build makes fairlead and fairlead-cni with places to die at, unless FAIRLEAD_CRASH_BIN is the directory of some.
func build(ctx context.Context) (dir string, err error) {
	if dir = os.Getenv("FAIRLEAD_CRASH_BIN"); dir != "" {
		return dir, nil
	}
	if dir, err = os.MkdirTemp("", "fl-soak-cni-"); err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "go", "build", "-tags=crash", "-o", dir+"/", "github.com/fairlead-dev/fairlead/cmd/...")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build: %w\n%s", err, text)
	}
	return dir, nil
}
