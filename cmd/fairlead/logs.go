package main

import (
	"fmt"

	"github.com/fairlead-dev/fairlead/logship"
)

const logsHelp = `fairlead logs ls [--json]

Every log that is followed: size, lines read and acknowledged by each sink since the agent started, what is behind, what
was lost. Example:

  fairlead logs ls`

func runLogs(e env, args []string) error {
	f := newFlags(e, "logs", logsHelp).client()
	if err := f.parse(args, "ls"); err != nil {
		return err
	}
	var a logsAnswer
	printed, err := f.ask(e, "/v1/logs", &a)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, s := range a.Streams {
		for _, k := range s.Sinks {
			rows = append(rows, []string{
				s.Name, s.Format, size(s.Size), k.Sink, fmt.Sprint(k.Read), fmt.Sprint(k.Acked), size(k.Lag), size(k.Lost), fmt.Sprint(k.Doubled), s.Path,
			})
		}
	}
	table(e.stdout, "NAME FORMAT SIZE SINK READ ACKNOWLEDGED BEHIND LOST DOUBLED PATH", rows)
	fmt.Fprintln(e.stdout)
	printSinks(e, a.Sinks)
	return nil
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
