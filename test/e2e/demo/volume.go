package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/treetest"
	"github.com/fairlead-dev/fairlead/volumes"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// Where the first host has its volume, its backups and what comes back, as the host sees them.
const (
	oddPath        = "/srv/odd"
	repositoryPath = "/srv/backups"
	restoredPath   = "/srv/odd.restored"
)

// volume fills a directory with every kind of entry that a tool may lose, takes a snapshot and a backup of it, destroys
// it, restores it elsewhere and compares that with a copy that was made before.
func (d *Demo) volume(ctx context.Context) (string, error) {
	n := d.nodes[0]
	odd := n.Path(oddPath)
	if err := makeTree(odd); err != nil {
		return "", err
	}
	// The copy is made by another program than the one that is shown, and is compared before it is relied on.
	made := odd + ".made"
	if _, err := n.Run(ctx, "cp", "-a", "--sparse=auto", oddPath, oddPath+".made"); err != nil {
		return "", err
	}
	if err := same(odd, made); err != nil {
		return "", fmt.Errorf("the copy to compare with: %w", err)
	}
	began := time.Now()
	var s snapshot.Info
	if err := n.ask(ctx, &s, "volume", "snapshot", "odd"); err != nil {
		return "", err
	}
	var b volumes.Backup
	if err := n.ask(ctx, &b, "volume", "backup", "odd"); err != nil {
		return "", err
	}
	inside, err := os.ReadDir(odd)
	if err != nil {
		return "", err
	}
	for _, e := range inside {
		if err := os.RemoveAll(filepath.Join(odd, e.Name())); err != nil {
			return "", fmt.Errorf("destroy the volume: %w", err)
		}
	}
	var r volumes.Restored
	if err := n.ask(ctx, &r, "volume", "restore", "odd", "--to", restoredPath); err != nil {
		return "", err
	}
	took := time.Since(began)
	if err := same(made, n.Path(restoredPath)); err != nil {
		return "", fmt.Errorf("what came back is not what was there: %w", err)
	}
	if r.Done.Entries != b.Entries || b.Entries <= int64(len(inside)) {
		return "", fmt.Errorf("of %d entries in the backup, %d came back; the volume had %d at its top", b.Entries, r.Done.Entries, len(inside))
	}
	return fmt.Sprintf("%s: %d entries of %d kinds, %.1f MB: snapshot by %s, backed up (%d kB stored),\n"+
		"destroyed and restored within %.1f s; compared entry by entry with a copy made before: 0 differences",
		n.Name+":"+oddPath, b.Entries, len(treetest.Kinds()), float64(b.Bytes)/1e6, s.Driver, b.Stored/1000, took.Seconds()), nil
}

// same compares two trees.
func same(a, b string) error {
	differences, err := treetest.Compare(a, b)
	if err == nil && len(differences) > 0 {
		err = fmt.Errorf("%d differences:\n%s", len(differences), strings.Join(differences, "\n"))
	}
	return err
}

// makeTree makes dir with every kind of entry in it.
func makeTree(dir string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			failed, ours := r.(treeError)
			if !ours {
				panic(r)
			}
			err = fmt.Errorf("make tree: %w", failed)
		}
	}()
	treetest.Make(maker{}, dir)
	return nil
}

// maker stands in for a test where there is none: treetest asks it for nothing but to be stopped.
type maker struct{ testing.TB }

type treeError struct{ error }

// Helper is asked for by treetest and has no meaning here.
func (maker) Helper() {}

// Fatal stops making the tree.
func (maker) Fatal(args ...any) { panic(treeError{errors.New(fmt.Sprint(args...))}) }

// ask runs the operator's command on the host with --json and reads its answer into v.
func (n *Node) ask(ctx context.Context, v any, args ...string) error {
	out, err := n.fairlead(ctx, append(args, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("%s: read the answer of fairlead %s: %w: %s", n.Name, strings.Join(args, " "), err, out)
	}
	return nil
}
