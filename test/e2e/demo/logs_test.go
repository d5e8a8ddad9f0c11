package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinesThatAreMissingRepeatedOrOutOfOrderAreNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, want string
	}{
		{"whole", "demo a/out 1\n<30>1 - demo a/out 2\n{\"msg\":\"demo a/out 3\"}\n", ""},
		{"missing", "demo a/out 1\ndemo a/out 3\n", "a/out: of 3 lines 1 are missing and 0 came twice (2, ...)"},
		{"twice", "demo a/out 1\ndemo a/out 2\ndemo a/out 2\ndemo a/out 3\n", "a/out: of 3 lines 0 are missing and 1 came twice (2, ...)"},
		{"order", "demo a/out 1\ndemo a/out 3\ndemo a/out 2\n", "a/out: the lines came in another order"},
		{"more", "demo a/out 1\ndemo a/out 2\ndemo a/out 3\ndemo a/out 4\n", "a/out: 4 lines came, 3 were written"},
		{"none", "demo b/out 1\n", "a/out: of 3 lines 3 are missing and 0 came twice (1, 2, 3, ...)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "sink")
			if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := read(path)
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			if _, err := got.compare(counts{"a/out": 3}, exactlyOnce); err != nil {
				said = err.Error()
			}
			if said != c.want {
				t.Errorf("got %q, want %q, of:\n%s", said, c.want, c.file)
			}
		})
	}
}

func TestAWindowThatCameTwiceIsCountedAndAllowedOnlyUpToItsBound(t *testing.T) {
	t.Parallel()
	got := received{"a/out": {1, 2, 3, 2, 3, 4}}
	if n, err := got.compare(counts{"a/out": 4}, 2); n != 2 || err != nil {
		t.Errorf("repeated %d, %v", n, err)
	}
	if _, err := got.compare(counts{"a/out": 4}, 1); err == nil {
		t.Error("two repeats passed for one")
	}
	if _, err := (received{"a/out": {1, 3, 2, 3, 4}}).compare(counts{"a/out": 4}, 5); err == nil {
		t.Error("another order passed for a repeat")
	}
}
