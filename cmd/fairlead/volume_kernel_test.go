//go:build kernel

package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/test/treetest"
	"github.com/fairlead-dev/fairlead/volumes"
)

type noContainers struct{}

func (noContainers) Snapshot() *container.Snapshot { return &container.Snapshot{} }

func TestVolumeCommandsTellOneStory(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	if err := os.Mkdir(dir+"/odd", 0o755); err != nil {
		t.Fatal(err)
	}
	treetest.Make(t, dir+"/odd")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	st, err := state.Open(dir+"/state", log)
	if err != nil {
		t.Fatal(err)
	}
	v, err := volumes.New(volumes.Config{
		Directories:  []volumes.Directory{{Name: "odd", Path: dir + "/odd"}},
		Repositories: []volumes.Repository{{Name: "local", Path: dir + "/backups"}},
	}, volumes.Deps{Log: log, Stats: &stat.Registry{}, State: st, Inventory: noContainers{}, Node: "here"})
	if err != nil {
		t.Fatal(err)
	}
	server := api.New(dir+"/agent.sock", "", log)
	volumeRoutes(server, v)
	for _, run := range []func(context.Context) error{v.Run, server.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- run(agent.WithReady(ctx, func() { close(ready) })) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		<-ready
	}
	say := func(wantCode int, line string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		err := runVolume(env{&stdout, &stderr}, append(strings.Fields(line), "--socket", dir+"/agent.sock"))
		if (err != nil) != (wantCode != 0) {
			t.Errorf("volume %s: %v", line, err)
		}
		if err != nil {
			stderr.WriteString(err.Error())
		}
		return stdout.String() + stderr.String()
	}
	for _, step := range []struct {
		code int
		line string
		want string
	}{
		{0, "ls", dir + "/odd"},
		{0, "snapshots", "SNAPSHOT"},
		{0, "snapshot odd", "of odd by "},
		{0, "snapshots", "odd"},
		{0, "backup odd", "48 entries"},
		{0, "backup odd --repository local --json", `"stored": 0`},
		{0, "backups", "local"},
		{0, "restore odd --to " + dir + "/restored", "every file's hash compared"},
		{0, "verify odd", "is whole"},
		{1, "restore odd --to " + dir + "/restored", "the target directory is not empty"},
		{1, "restore odd", "restore needs --to DIR"},
		{1, "restore even --to " + dir + "/x", "a backup of even is unknown"},
		{1, "backup even", `volume "even" is unknown on this host`},
		{1, "backup odd --repository far", `repository "far" is unknown; there are local`},
		{1, "rm 0000", "no snapshot: backup 0000 is unknown"},
		{1, "frob", "unknown `volume frob`"},
		{1, "snapshot odd --repository local", "--repository is not for `volume snapshot`"},
		{1, "rm 0000 --to /x", "--to is not for `volume rm`"},
	} {
		if got := say(step.code, step.line); !strings.Contains(got, step.want) {
			t.Errorf("volume %s said %q, want %q in it", step.line, got, step.want)
		}
	}
	if diff, err := treetest.Compare(dir+"/odd", dir+"/restored"); err != nil || len(diff) > 0 {
		t.Errorf("(%v)\n%s", err, strings.Join(diff, "\n"))
	}
	var ids []string
	for _, list := range []string{say(0, "snapshots"), say(0, "backups")} {
		for _, row := range strings.Split(strings.TrimSpace(list), "\n")[1:] {
			ids = append(ids, strings.Fields(row)[0])
		}
	}
	for _, id := range ids {
		got := say(0, "rm "+id)
		if backup := strings.HasPrefix(got, "removed backup "); !backup && !strings.HasPrefix(got, "removed snapshot ") || strings.Contains(got, "no space was freed") != backup {
			t.Errorf("rm %s said %q", id, got)
		}
	}
	if len(ids) != 3 || strings.Contains(say(0, "snapshots")+say(0, "backups"), "odd") {
		t.Errorf("of %v something is left:\n%s%s", ids, say(0, "snapshots"), say(0, "backups"))
	}
}
