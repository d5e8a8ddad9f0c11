package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/logship"
)

func runLogsVerify(e env, args []string) error {
	f := newFlags(e, "logs verify", logsHelp).client()
	if err := f.parse(args); err != nil {
		return err
	}
	var v logship.Verified
	printed, err := f.ask(e, "/v1/logs/verify", &v)
	if errors.Is(err, api.ErrNotRunning) && *f.socket == "" {
		v, err = verifyHere(*f.config)
		if err == nil && *f.json {
			printed, err = true, printJSON(e.stdout, v)
		}
	}
	if err != nil {
		return err
	}
	if !printed {
		printVerified(e.stdout, v)
	}
	if len(v.Faults) > 0 {
		return errUnwell
	}
	return nil
}

func printVerified(w io.Writer, v logship.Verified) {
	for _, x := range v.Faults {
		fmt.Fprintf(w, "!! %s\n   %s\n", x.Path, x.What)
		if who := cmp.Or(x.Sink, x.Stream); who != "" {
			fmt.Fprintf(w, "   log %s, sink %s\n", x.Stream, cmp.Or(x.Sink, "all"))
		}
	}
	fmt.Fprintf(w, "%d logs, %d positions, %s compared byte for byte: %d faults\n", v.Streams, v.Positions, size(v.Summed), len(v.Faults))
}

// verifyHere looks for itself while no agent runs.
func verifyHere(path string) (logship.Verified, error) {
	file, _, err := loadFile(path, path != defaultConfigFile)
	if err != nil {
		return logship.Verified{}, err
	}
	return logship.Verify(filepath.Join(file.StateDir, "logship"), file.Logship.Pins)
}
