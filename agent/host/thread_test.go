package host

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAThreadOfItsOwnIsNeverTheFirstAndGivesTheError(t *testing.T) {
	t.Parallel()
	want := errors.New("as it was")
	for range 100 {
		if err := OnThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("the first thread")
			}
			return want
		}); !errors.Is(err, want) {
			t.Fatal(err)
		}
	}
}
