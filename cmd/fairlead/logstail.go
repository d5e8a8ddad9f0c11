package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/logship"
)

func runLogsTail(e env, args []string) error {
	f := newFlags(e, "logs tail", logsHelp).client()
	last := f.Int("n", 10, "last `lines` of each log to begin with")
	follow := f.Bool("f", false, "go on with what comes, until Ctrl-C")
	name, err := f.oneWord(args, "CONTAINER")
	if err != nil {
		return err
	}
	var a logsAnswer
	if printed, err := f.ask(e, "/v1/logs", &a); err != nil || printed {
		return err
	}
	streams := named(a.Streams, name)
	if len(streams) == 0 {
		return fmt.Errorf("no followed log is called %q; `fairlead logs ls` names them", name)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var printing sync.Mutex
	failed := make([]error, len(streams))
	show := func(s logship.StreamStatus) func(time.Time, string) {
		from := ""
		if len(streams) > 1 {
			from = middle(s.Path, 34) + " "
		}
		return func(at time.Time, line string) {
			stamp := ""
			if !at.IsZero() {
				stamp = at.Local().Format("15:04:05.000 ")
			}
			printing.Lock()
			defer printing.Unlock()
			fmt.Fprintln(e.stdout, from+stamp+line)
		}
	}
	if !*follow {
		for i, s := range streams {
			failed[i] = logship.Peek(ctx, s, *last, false, show(s))
		}
		return errors.Join(failed...)
	}
	var all sync.WaitGroup
	for i, s := range streams {
		all.Go(func() { failed[i] = logship.Peek(ctx, s, *last, true, show(s)) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// oneWord parses flags and exactly one other word, before them or behind.
func (f *flags) oneWord(args []string, what string) (string, error) {
	word := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		word, args = args[0], args[1:]
	}
	err := f.Parse(args)
	switch {
	case err != nil:
		return "", f.parse(args) // --help, or a fault
	case word == "" && f.NArg() == 1:
		return f.Arg(0), nil
	case word == "" || f.NArg() > 0:
		return "", misuse("expected one %s, see --help", what)
	}
	return word, nil
}

// named gives the logs of what a person calls name: a container's name or the beginning of its id, a stream, or a path.
func named(all []logship.StreamStatus, name string) (out []logship.StreamStatus) {
	for _, s := range all {
		if s.Called(name) {
			out = append(out, s)
		}
	}
	return out
}
