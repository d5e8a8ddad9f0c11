// Command logs measures what delivering logs costs: the log shipper as the agent runs it, in a process of its own, beside
// rsyslog's imfile in the same run. Every line that arrives is checked while it is timed.
//
// It owns a directory below /tmp and the processes that it starts, and leaves nothing.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	seed := flag.Uint64("seed", 20261121, "of the corpus")
	profile := flag.String("profile", "", "file for a CPU profile of the shipper that sends CRI to Loki; FILE.docker gets that of docker json")
	flag.Parse()
	if job := os.Getenv(jobEnv); job != "" {
		if err := ship(ctx, job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	r, err := measure(ctx, *seed, os.Getenv("SHORT") != "", *profile)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	text, err := json.Marshal(r)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(text))
}
