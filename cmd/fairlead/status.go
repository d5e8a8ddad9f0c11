package main

import (
	"fmt"
)

const statusHelp = `fairlead status [--json]

Parts, runtimes, networks, sinks and the last backup of each volume. Exit 1 when something is wrong, and say what. Example:

  fairlead status || journalctl -u fairlead -n 50`

func runStatus(e env, args []string) error {
	f := newFlags(e, "status", statusHelp).client()
	if err := f.parse(args); err != nil {
		return err
	}
	var s statusAnswer
	printed, err := f.ask(e, "/v1/status", &s)
	if err != nil {
		return err
	}
	if !printed {
		printStatus(e, s)
	}
	if len(s.Wrong) > 0 {
		return errUnwell
	}
	return nil
}

func printStatus(e env, s statusAnswer) {
	if len(s.Wrong) == 0 {
		fmt.Fprintf(e.stdout, "%s: all is well (fairlead %s)\n\n", s.Node, s.Version)
	} else {
		fmt.Fprintf(e.stdout, "%s: %d wrong (fairlead %s)\n", s.Node, len(s.Wrong), s.Version)
		for _, w := range s.Wrong {
			fmt.Fprintf(e.stdout, "  ! %s\n", w)
		}
		fmt.Fprintln(e.stdout)
	}
	var rows [][]string
	for _, p := range s.Parts {
		rows = append(rows, []string{p.Name, string(p.State), ago(p.Since), fmt.Sprint(p.Restarts), p.LastError})
	}
	table(e.stdout, "PART STATE FOR RESTARTS LAST-ERROR", rows)
	rows = nil
	for _, r := range s.Runtimes {
		state := "answers"
		if !r.Answered {
			state = "unanswered"
		}
		rows = append(rows, []string{string(r.Name), state, ago(r.Since), fmt.Sprint(r.Count), r.Socket})
	}
	fmt.Fprintln(e.stdout)
	if len(rows) == 0 {
		fmt.Fprintln(e.stdout, "no container runtime has answered yet")
	} else {
		table(e.stdout, "RUNTIME STATE FOR CONTAINERS SOCKET", rows)
	}
	rows = nil
	for _, n := range s.Networks {
		rows = append(rows, []string{n.Name, n.CIDR.String(), fmt.Sprint(n.VNI), fmt.Sprint(n.Attachments), fmt.Sprint(n.Free), fmt.Sprint(len(n.Peers))})
	}
	if len(rows) > 0 {
		fmt.Fprintln(e.stdout)
		table(e.stdout, "NETWORK CIDR VNI ATTACHED FREE PEERS", rows)
	}
	if len(s.Sinks) > 0 {
		fmt.Fprintln(e.stdout)
		printSinks(e, s.Sinks)
	}
	rows = nil
	for _, b := range s.Backups {
		result := "ok"
		if b.Error != "" {
			result = "failed"
		}
		rows = append(rows, []string{b.Volume, result, ago(b.At), b.Repository})
	}
	if len(rows) > 0 {
		fmt.Fprintln(e.stdout)
		table(e.stdout, "VOLUME LAST-BACKUP AGE REPOSITORY", rows)
	}
}
