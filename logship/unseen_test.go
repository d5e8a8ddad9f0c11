package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

func TestGenerationsThatNobodySawAreCountedFromEvents(t *testing.T) {
	t.Parallel()
	// m made, w written, c closed, | the end of a batch and a look that saw a new generation, . one that saw none.
	for story, want := range map[string]int{
		"w. w.":         0,
		"cw|":           0, // emptied once
		"cwcw|":         1, // twice before we looked
		"cwcwcw| w. w.": 2,
		"cw| cw| cw|":   0,
		"c. w.":         0, // the container was started again
		"cw| c. w. cw|": 0,
		"cw. cw.":       0, // opened again, quickly
		"cw| cw.":       1, // seen too late: the look saw the second already
		"c|w. cw|":      0, // the look was ahead of what was told
		"| cw. cw|":     0,
		"mw| cmw| cmw|": 0, // unlinked and made anew
		"cmwcmw|":       1,
		"mcmw|":         0, // the first never had a line
		"m| w. w.":      0, // seen while it was empty
		"m| m| w. cmw|": 0,
		"m. w.":         0, // moved away and back
	} {
		now := time.Unix(1000, 0)
		l := lives{empties: true, written: true, newest: 3, begun: now}
		newest, since, told, got := int64(3), now, now, 0
		for _, what := range story {
			now = now.Add(time.Second)
			switch what {
			case 'm':
				l.event(tail.Event{Made: true})
			case 'w':
				l.event(tail.Event{Written: true})
			case 'c':
				l.event(tail.Event{Closed: true})
			case '|', '.':
				at := now // the kernel's queue was empty then, and the look came after
				now = now.Add(time.Second)
				if what == '|' {
					newest, since = newest+1, now
				}
				got += l.count(newest, since, told, at)
				told = at
			}
		}
		if got != want {
			t.Errorf("%q: %d unseen, want %d", story, got, want)
		}
	}
}

// oneFile writes a container's log as docker does with max-file=1.
type oneFile struct {
	t       *testing.T
	path    string
	unlinks bool // as docker does since version 23
	file    *os.File
	size    int64
	n       int
	gen     []int // of each line
	gens    int
	marks   int
}

const full = 2000 // bytes

func (o *oneFile) open(flag int) {
	var err error
	if o.file, err = os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|flag, 0o640); err != nil {
		o.t.Fatal(err)
	}
}

func (o *oneFile) text(i int) string {
	return fmt.Sprintf(`{"log":"line %d\n","stream":"stdout","time":"2026-11-21T09:20:00.%09dZ"}`+"\n", i, i)
}

func (o *oneFile) line() {
	if o.size >= full {
		if err := o.file.Close(); err != nil {
			o.t.Fatal(err)
		}
		if o.unlinks {
			if err := os.Remove(o.path); err != nil {
				o.t.Fatal(err)
			}
		}
		o.open(os.O_TRUNC)
		o.gens, o.size = o.gens+1, 0
	}
	n, err := o.file.WriteString(o.text(o.n))
	if err != nil {
		o.t.Fatal(err)
	}
	o.n, o.size, o.gen = o.n+1, o.size+int64(n), append(o.gen, o.gens)
}

// fill writes until n more generations are full.
func (o *oneFile) fill(n int) {
	for end := o.gens + n; o.gens < end || o.size < full; {
		o.line()
	}
}

// lost gives the bytes and the whole generations that did not arrive, and the bytes of which the agent can know: docker
// begins anew when a file has its size or up to a line more.
func (o *oneFile) lost(copied string) (bytes, known int64, gens, doubled int) {
	arrived := map[int]int{}
	for _, k := range numbers(lines(copied)) {
		arrived[k]++
	}
	some, here, gone := map[int]bool{}, map[int]int64{}, map[int]bool{}
	for i, g := range o.gen {
		doubled += max(0, arrived[i]-1)
		if arrived[i] == 0 {
			bytes += int64(len(o.text(i)))
			gone[g] = true
		} else {
			some[g], here[g] = true, here[g]+int64(len(o.text(i)))
		}
	}
	for g := range gone {
		known += max(0, full-here[g])
	}
	return bytes, known, o.gens + 1 - len(some), doubled
}

func startOneFile(t *testing.T, unlinks bool) (o *oneFile, s ship, copied string) {
	dir := t.TempDir()
	o = &oneFile{t: t, path: filepath.Join(dir, "c", "c-json.log"), unlinks: unlinks}
	if err := os.Mkdir(filepath.Dir(o.path), 0o755); err != nil {
		t.Fatal(err)
	}
	o.open(os.O_APPEND)
	t.Cleanup(func() { _ = o.file.Close() })
	c := container.Container{ID: "c", Name: "c", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: o.path, Format: container.DockerJSON, Truncates: true, MaxBytes: full}}
	copied = filepath.Join(dir, "copy")
	s = run(t, dir, Config{Files: []File{{Path: filepath.Join(dir, "c", "*.mark")}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: copied}}}, newInventory(c))
	eventually(t, "the log is found", func() bool { return len(s.Streams()) == 1 })
	return o, s, copied
}

// told waits until the agent knows all that the kernel had to tell by now: it tells in order.
func (o *oneFile) told(s ship) {
	o.t.Helper()
	o.marks++
	writeFile(o.t, filepath.Join(filepath.Dir(o.path), fmt.Sprintf("%d.mark", o.marks)), "")
	eventually(o.t, "the mark is found", func() bool { return len(s.Streams()) == 1+o.marks })
}

func (o *oneFile) arrived(s ship, copied string) {
	o.t.Helper()
	eventually(o.t, "the last line", func() bool {
		got := lines(copied)
		return len(got) > 0 && strings.HasSuffix(got[len(got)-1], fmt.Sprintf("line %d", o.n-1)) && s.sink(0).Lag == 0
	})
}

func TestOneGenerationKeptTheBitmapAgreesWithWhatIsReportedLost(t *testing.T) {
	t.Parallel()
	for name, unlinks := range map[string]bool{"emptied in place": false, "unlinked and made anew": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, s, copied := startOneFile(t, unlinks)
			for _, unseen := range []int{0, 1, 4, 0, 2} {
				for range 5 { // less than a file
					o.line()
				}
				o.arrived(s, copied)
				s.sinks[0].mu.Lock() // the follower stops after its next look, the reader altogether
				o.line()
				o.fill(unseen)
				o.line()
				s.sinks[0].mu.Unlock()
				o.arrived(s, copied)
			}
			bytes, known, gens, doubled := o.lost(copied)
			k := s.sink(0)
			t.Logf("%d lines in %d generations: %d of them and %d bytes did not arrive; reported %d, at least %d bytes", o.n, o.gens+1, gens, bytes, k.Whole, k.Lost)
			if gens == 0 || int(k.Whole) != gens || doubled > 0 {
				t.Errorf("%d generations reported lost, %d are missing; %d lines doubled", k.Whole, gens, doubled)
			}
			if got := int64(k.Lost); got > bytes || got < known {
				t.Errorf("at least %d bytes reported lost, %d are missing, of which %d can be known", got, bytes, known)
			}
		})
	}
}

func TestOneGenerationKeptNothingIsReportedLostWhenAllWasRead(t *testing.T) {
	t.Parallel()
	for name, unlinks := range map[string]bool{"emptied in place": false, "unlinked and made anew": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, s, copied := startOneFile(t, unlinks)
			for i := range 12 {
				o.fill(0)
				o.arrived(s, copied)
				o.line() // which begins the next
				if i%4 == 0 {
					o.arrived(s, copied)
					o.told(s)
					if err := o.file.Close(); err != nil { // the container is started again
						t.Fatal(err)
					}
					o.open(os.O_APPEND)
					o.line()
				}
				o.arrived(s, copied)
			}
			o.told(s)
			bytes, _, gens, doubled := o.lost(copied)
			if k := s.sink(0); bytes != 0 || doubled != 0 || k.Whole != 0 || k.Lost != 0 {
				t.Errorf("%d generations, %d bytes lost, %d lines doubled; reported %d, %d bytes", gens, bytes, doubled, k.Whole, k.Lost)
			}
		})
	}
}
