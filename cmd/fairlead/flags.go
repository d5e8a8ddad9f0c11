package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/fairlead-dev/fairlead/agent/api"
)

// usageError is a fault of the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func misuse(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

var (
	errHelp   = errors.New("help was asked for")
	errUnwell = errors.New("something is wrong; it has been said")
)

// flags are those of one command.
type flags struct {
	*flag.FlagSet
	config, socket *string
	json           *bool
	help           func() error
}

// newFlags makes the flag set of a command. help is its --help text: what it does and an example.
func newFlags(e env, name, help string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.Usage = func() {} // package flag calls it for each fault, too
	f.help = func() error {
		fmt.Fprintf(e.stdout, "%s\n\nFlags:\n", help)
		f.SetOutput(e.stdout)
		f.PrintDefaults()
		return errHelp
	}
	return f
}

// client adds the flags of commands that ask the daemon.
func (f *flags) client() *flags {
	f.config = f.String("config", defaultConfigFile, "configuration `file`, which says where the daemon's socket is")
	f.socket = f.String("socket", "", "the daemon's socket, whatever the configuration says")
	f.json = f.Bool("json", false, "print JSON")
	return f
}

// parse reads args; words that are no flags must be exactly those named in words ("ls").
func (f *flags) parse(args []string, words ...string) error {
	for i, w := range words {
		if len(args) == 0 || args[0] != w {
			if len(args) > 0 && (args[0] == "--help" || args[0] == "-help" || args[0] == "-h") {
				return f.help()
			}
			return misuse("expected `%s`, see --help", words[i])
		}
		args = args[1:]
	}
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return f.help()
	}
	if err != nil {
		return misuse("%v", err)
	}
	if f.NArg() > 0 {
		return misuse("unexpected %q, see --help", f.Arg(0))
	}
	return nil
}

// dial gives the client of the daemon that the flags name.
func (f *flags) dial() (*api.Client, error) {
	if *f.socket != "" {
		return api.NewClient(*f.socket), nil
	}
	file, _, err := loadFile(*f.config, *f.config != defaultConfigFile)
	if err != nil {
		return nil, err
	}
	return api.NewClient(file.agentSocket()), nil
}
