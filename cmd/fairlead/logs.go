package main

import (
	"cmp"
	"fmt"

	"github.com/fairlead-dev/fairlead/logship"
)

const logsHelp = `fairlead logs ls [--wide] [--json]
fairlead logs tail CONTAINER [-n LINES] [-f]
fairlead logs verify [--json]
fairlead logs resend CONTAINER --since T [--sink NAME] [--json]
fairlead logs test --rule RULE FILE

ls: every log that is followed: its size, the lines read and acknowledged by each sink since the agent started, the
bytes that are behind, lines a second, the records that rules have dropped (all, and those beyond
their rate), bytes that were destroyed
unread (12.0MiB+: with whole files of which only the least is known). tail: the last lines of a container's logs, and those that come.
verify: compares the ledger with the files, also while no agent runs; exit 1 when they disagree. resend: sends once more
what sinks have had since T (15m, 7d, 2026-11-20, 2026-11-20T08:00:00Z), from the files that are still there, also rotated
and gzipped ones; Ctrl-C ends it. test: what a rule would do, see logs test --help. Example:

  fairlead logs tail web -f`

func runLogs(e env, args []string) error {
	verbs := map[string]func(env, []string) error{"ls": runLogsLs, "tail": runLogsTail, "verify": runLogsVerify, "resend": runLogsResend, "test": runLogsTest}
	if len(args) > 0 && verbs[args[0]] != nil {
		return verbs[args[0]](e, args[1:])
	}
	return newFlags(e, "logs", logsHelp).client().parse(args, "ls|tail|verify|resend|test")
}

func runLogsLs(e env, args []string) error {
	f := newFlags(e, "logs ls", logsHelp).client()
	wide := f.Bool("wide", false, "whole paths, whatever the width")
	if err := f.parse(args); err != nil {
		return err
	}
	var a logsAnswer
	printed, err := f.ask(e, "/v1/logs", &a)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, s := range a.Streams {
		path := s.Path
		if !*wide {
			path = middle(path, 34)
		}
		for _, k := range s.Sinks {
			rows = append(rows, []string{
				cmp.Or(s.Name, "host"), size(s.Size), k.Sink, fmt.Sprint(k.Read), fmt.Sprint(k.Acked), size(k.Lag),
				fmt.Sprintf("%.1f/s", k.Rate), dropped(k.Dropped), lost(k), path,
			})
		}
	}
	table(e.stdout, "NAME SIZE SINK READ ACKED BEHIND RATE DROPPED LOST PATH", rows)
	fmt.Fprintln(e.stdout)
	printSinks(e, a.Sinks)
	return nil
}

// dropped writes how many records rules kept from a sink, and how many of them for their rate: those were not meant to go.
func dropped(d logship.Dropped) string {
	all := fmt.Sprint(d.Rule + d.Sample + d.Budget)
	if d.Budget > 0 {
		all += fmt.Sprintf(" (rate %d)", d.Budget)
	}
	return all
}

// lost writes what was destroyed unread; + says that there were whole files among it, of which only the least is known.
func lost(k logship.StreamLedger) string {
	if k.Whole > 0 {
		return size(k.Lost) + "+"
	}
	return size(k.Lost)
}

// middle shortens text to n characters by leaving out its middle.
func middle(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	head := n/2 - 1
	return string(r[:head]) + "…" + string(r[len(r)-(n-head-1):])
}

func printSinks(e env, sinks []logship.SinkStatus) {
	var rows [][]string
	for _, k := range sinks {
		state := "up"
		switch {
		case !k.Up && k.Error == "":
			state = "idle" // it has had nothing to deliver yet
		case !k.Up:
			state = "down"
		}
		rows = append(rows, []string{k.Name, string(k.Class), state, fmt.Sprint(k.Acked), fmt.Sprint(k.Rejected), size(k.Lag), ago(k.LastAck), k.Error})
	}
	table(e.stdout, "SINK CLASS STATE ACKNOWLEDGED REJECTED BEHIND LAST ERROR", rows)
}
