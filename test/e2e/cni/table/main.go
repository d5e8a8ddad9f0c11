// Command table runs the CNI suite against several plugins and prints, in Markdown, who passes what; docs/networking.md
// holds its output. It says on standard error why a case failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	cni "github.com/fairlead-dev/fairlead/test/e2e/cni"
	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
)

func main() {
	bin := flag.String("bin", "bin", "directory of fairlead and fairlead-cni; empty: leave them out")
	reference := flag.String("reference", "", "directory of bridge, host-local and portmap; empty: leave them out")
	only := flag.String("only", "", "cases whose name holds this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var plugins []cni.Plugin
	if *bin != "" {
		plugins = append(plugins, drivers.Fairlead(absolute(*bin)))
	}
	if *reference != "" {
		plugins = append(plugins, drivers.Reference(absolute(*reference)))
	}
	var names []string
	for _, p := range plugins {
		names = append(names, p.Name)
	}
	fmt.Printf("| case | what must be so | %s |\n|---|---|%s\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	failed := 0
	for _, c := range cni.Cases() {
		if !strings.Contains(c.Name, *only) || ctx.Err() != nil {
			continue
		}
		var cells []string
		for _, p := range plugins {
			o := cni.Run(ctx, p, c)
			switch {
			case o.Skipped != "":
				cells = append(cells, "– ("+o.Skipped+")")
			case o.Err != nil:
				cells = append(cells, "**no**")
				failed++
				fmt.Fprintf(os.Stderr, "%s: %s: %v\n", p.Name, c.Name, o.Err)
			default:
				cells = append(cells, "yes")
			}
		}
		fmt.Printf("| %s | %s | %s |\n", c.Name, c.Says, strings.Join(cells, " | "))
	}
	fmt.Fprintf(os.Stderr, "%d failed\n", failed)
}

func absolute(dir string) string {
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	wd, err := os.Getwd()
	if err != nil {
		return dir
	}
	return wd + "/" + dir
}
