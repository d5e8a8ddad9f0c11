package main

import (
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
)

const doctorHelp = `fairlead doctor [--json]

What this kernel, its runtimes and its network can and cannot do, and what to change. Exit 1 when something is to be
changed. When a peer is not reached well it takes up to twenty seconds to see why. Example:

  fairlead doctor`

func runDoctor(e env, args []string) error {
	f := newFlags(e, "doctor", doctorHelp).client()
	if err := f.parse(args); err != nil {
		return err
	}
	var findings []host.Finding
	printed, err := f.askFor(30*time.Second, e, "/v1/doctor", &findings)
	if err != nil {
		return err
	}
	unwell := false
	for _, x := range findings {
		unwell = unwell || !x.OK
		if printed {
			continue
		}
		mark := "ok "
		if !x.OK {
			mark = "!! "
		}
		fmt.Fprintf(e.stdout, "%s %-28s %s\n", mark, x.What, x.Found)
		if x.Advice != "" {
			fmt.Fprintf(e.stdout, "    %-28s %s\n", "", x.Advice)
		}
	}
	if unwell {
		return errUnwell
	}
	return nil
}
