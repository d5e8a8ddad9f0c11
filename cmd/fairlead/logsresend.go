package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/logship"
)

func runLogsResend(e env, args []string) error {
	f := newFlags(e, "logs resend", logsHelp).client()
	since := f.String("since", "", "since `when`: 15m, 7d, 2026-11-20, or a moment as in RFC 3339")
	to := f.String("sink", "", "to this sink `NAME` only, not to all that the log goes to")
	name, err := f.oneWord(args, "CONTAINER")
	if err != nil {
		return err
	}
	if *since == "" {
		return misuse("expected --since T, see --help")
	}
	from, err := parseSince(*since, time.Now())
	if err != nil {
		return err
	}
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var sent []logship.Resent
	told := time.Now()
	err = c.Stream(ctx, "/v1/logs/resend", logship.ResendRequest{Log: name, Since: from, Sink: *to}, &sent, func(raw json.RawMessage) {
		var now []logship.Resent
		if (terminal(e.stderr) || time.Since(told) >= 10*time.Second) && json.Unmarshal(raw, &now) == nil {
			told = time.Now()
			printResent(e.stderr, now)
		}
	})
	if err != nil {
		return err
	}
	if *f.json {
		return printJSON(e.stdout, sent)
	}
	printResent(e.stdout, sent)
	return nil
}

func printResent(w io.Writer, all []logship.Resent) {
	for _, r := range all {
		switch {
		case r.Done:
			fmt.Fprintf(w, "%d lines of %s sent again to %s\n", r.Acked, r.Stream, r.Sink)
		case r.Error != "":
			fmt.Fprintf(w, "%d of %d lines of %s read again; sink %s takes nothing now: %s\n", r.Acked, r.Read, r.Stream, r.Sink, r.Error)
		default:
			fmt.Fprintf(w, "%d lines of %s sent again to %s, and more to come\n", r.Acked, r.Stream, r.Sink)
		}
		if len(r.Skipped) > 0 {
			fmt.Fprintf(w, "   not readable: %s\n", strings.Join(r.Skipped, "; "))
		}
	}
}
