package main

import (
	"fmt"

	"github.com/fairlead-dev/fairlead/agent/config"
)

const configHelp = `fairlead config check [--config F]   validate the file; exit 1 and name every problem
fairlead config print [--config F]   the effective configuration, defaults filled in, with what each key means

Neither touches anything or needs the daemon. Example:

  fairlead config check --config /etc/fairlead/fairlead.yaml`

func runConfig(e env, args []string) error {
	f := newFlags(e, "config", configHelp)
	path := f.String("config", defaultConfigFile, "configuration `file`")
	asJSON := f.Bool("json", false, "print JSON")
	if len(args) == 0 || (args[0] != "check" && args[0] != "print") {
		if err := f.parse(args); err != nil {
			return err
		}
		return misuse("expected `check` or `print`, see --help")
	}
	if err := f.parse(args[1:]); err != nil {
		return err
	}
	file, read, err := loadFile(*path, *path != defaultConfigFile)
	if err != nil {
		return err
	}
	if args[0] == "check" {
		if read.Name() == "" {
			fmt.Fprintf(e.stdout, "%s: no such file; the defaults are in force\n", *path)
			return nil
		}
		fmt.Fprintf(e.stdout, "%s: ok\n", *path)
		return nil
	}
	if *asJSON {
		return config.PrintJSON(e.stdout, file, read)
	}
	return config.Print(e.stdout, file, read)
}
