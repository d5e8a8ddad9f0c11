package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/logship"
)

// examineLogs names the logs whose writers empty them in place: what is written between two looks, and emptied before
// the second, no reader can have, whatever it is told to keep.
func examineLogs(containers []container.Container, streams []logship.StreamStatus) []host.Finding {
	var names []string
	for i := range containers {
		if c := &containers[i]; c.Log.Truncates {
			names = append(names, fmt.Sprintf("%s (%s, one file that is emptied when full)", c.Name, c.Runtime))
		}
	}
	for _, s := range streams {
		if s.Truncated && s.Format != string(container.DockerJSON) {
			names = append(names, s.Path+" (was emptied in place)")
		}
		if n := lostWhole(s); n > 0 {
			names = append(names, fmt.Sprintf("%s (%d whole files destroyed unread since the agent started)", cmp.Or(s.Name, s.Path), n))
		}
	}
	f := host.Finding{What: "logs", OK: true, Found: "none is emptied in place"}
	if len(names) > 0 {
		f.OK, f.Found = false, "emptied or replaced, so that lines can be lost unseen: "+strings.Join(names, ", ")
		f.Advice = "let them be renamed: docker run --log-opt max-file=3, a greater max-size; logrotate without copytruncate"
	}
	return []host.Finding{f}
}

// lostWhole gives how many generations of a log some sink was given nothing of.
func lostWhole(s logship.StreamStatus) (n uint64) {
	for _, k := range s.Sinks {
		n = max(n, k.Whole)
	}
	return n
}
