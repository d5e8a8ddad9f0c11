package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
)

// Files are renamed in bursts while a look goes through their names: none of them may be behind no name in it.
func TestWhatIsRenamedDuringALookIsTakenInAllTheSame(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, path, "0")
	s := series(t, path)
	const last, burst, kept = 600, 3, 30
	var looks, begun atomic.Int64
	rotated := make(chan error, 1)
	go func() {
		for i := 1; i <= last; i++ {
			for k := kept; k > 0; k-- {
				_ = os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1))
			}
			err := os.Rename(path, path+".1")
			if err == nil {
				err = os.WriteFile(path, []byte(fmt.Sprint(i)), 0o644)
			}
			if err != nil {
				rotated <- err
				return
			}
			if i%burst == 0 { // the next burst waits for a look that began after this one's end
				for at := begun.Load(); looks.Load() <= at; {
					runtime.Gosched()
				}
			}
		}
		rotated <- nil
	}()
	for done := false; !done; {
		select {
		case err := <-rotated:
			must(t, err)
			done = true
		default:
		}
		begun.Add(1)
		_, err := s.Look()
		must(t, err)
		looks.Add(1)
	}
	n := 0
	for g := s.First(); g != nil; g = g.Next() {
		if got := content(t, g); got != fmt.Sprint(n) {
			t.Fatalf("generation %d is missing: %s follows", n, got)
		}
		n++
	}
	if n != last+1 {
		t.Errorf("%d generations, want %d", n, last+1)
	}
}
