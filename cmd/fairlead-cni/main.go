// Command fairlead-cni is the CNI plugin: runtimes execute it, it asks the daemon. See package plugin.
package main

import (
	"os"

	plugin "github.com/fairlead-dev/fairlead/cni-plugin"
)

func main() {
	os.Exit(plugin.Run(plugin.Call{Env: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout}))
}
