package host

import (
	"os"
	"slices"
	"testing"
)

func TestProcessWithParenthesesInItsNameIsRead(t *testing.T) {
	t.Parallel()
	line := "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 365115 1 1"
	p, alive := parseStat([]byte(line))
	if want := (Process{PID: 42, Parent: 7, Start: 365115, Comm: "a) b (c)"}); p != want || !alive {
		t.Fatalf("got %+v, %v, want %+v", p, alive, want)
	}
}

func TestZombieHasEnded(t *testing.T) {
	t.Parallel()
	if _, alive := parseStat([]byte("42 (sh) Z 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 365115 1 1")); alive {
		t.Fatal("a zombie was given as alive")
	}
}

func TestOwnProcessIsFoundByItsNamespace(t *testing.T) {
	t.Parallel()
	r := DefaultRoot()
	ns, err := r.NetNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	in, err := r.In(ns)
	if err != nil || !slices.Contains(in, os.Getpid()) {
		t.Fatalf("process %d is not among %v of %s: %v", os.Getpid(), in, ns, err)
	}
	if args := r.Args(os.Getpid()); !slices.Equal(args, os.Args) {
		t.Fatalf("got %q, want %q", args, os.Args)
	}
}
