//go:build vm

package vagrant

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-dev/fairlead/test/vagrant/machine"
)

// lane is the last line that `make test-vm` prints.
type lane struct {
	Lane    string `json:"lane"`
	Stories int    `json:"stories"`
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Seconds int    `json:"seconds"`
}

// told counts the stories that were begun, and those that passed.
var told, passed atomic.Int32

func TestMain(m *testing.M) {
	began := time.Now()
	var once sync.Once
	end := func(code int) {
		once.Do(func() {
			l := lane{Lane: "vm", Stories: int(told.Load()), Passed: int(passed.Load()), Seconds: int(time.Since(began).Seconds())}
			l.Failed = l.Stories - l.Passed
			if l.Stories == 0 {
				code = 1 // nothing was told, so nothing is known
			}
			b, _ := json.Marshal(l) // numbers and a word
			fmt.Println(string(b))
			os.Exit(code)
		})
		select {} // the other one ends the process
	}
	// Not by go test's own bound, which would end without the last line.
	if bound, err := time.ParseDuration(os.Getenv("VM_BOUND")); err == nil {
		time.AfterFunc(bound, func() {
			fmt.Printf("vm: the stories took longer than %s, and were cut short\n", bound)
			end(1)
		})
	}
	end(m.Run())
}

// TestStories tells each story with machines of its own, one story after the other: two cores have no room for more.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("stories/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for _, file := range files {
		name := filepath.Base(file[:len(file)-len(".txtar")])
		t.Run(name, func(t *testing.T) {
			told.Add(1)
			t.Cleanup(func() {
				switch {
				case t.Skipped():
					told.Add(-1)
				case !t.Failed():
					passed.Add(1)
				}
			})
			testscript.RunT(inner{t}, testscript.Params{Files: []string{file}, Setup: w.setup, Cmds: w.commands(), Condition: w.condition, RequireUniqueNames: true})
		})
	}
}

// inner runs the one story of a file in the test that was made for it, not in another one below it.
type inner struct{ *testing.T }

func (t inner) Run(_ string, f func(testscript.T)) { f(t) }
func (t inner) Parallel()                          {}
func (t inner) Verbose() bool                      { return testing.Verbose() }

// condition gives testscript what a story may ask for in brackets besides its own words.
func (w world) condition(word string) (bool, error) {
	switch word {
	case "vagrant":
		return w.vagrant, nil
	case "packages": // some were chosen
		return os.Getenv("PACKAGES") != "", nil
	}
	return false, fmt.Errorf("unknown condition %q", word)
}

// world is what all stories share.
type world struct {
	base    machine.Config
	vagrant bool   // machines are made by the Vagrantfile, not by QEMU
	out     string // a directory in it for each story: consoles and journals
}

func newWorld(t *testing.T) world {
	t.Helper()
	if os.Getenv("VM_BY") == "vagrant" {
		return world{vagrant: true, out: os.Getenv("VM_OUT")}
	}
	image, product := os.Getenv("VM_IMAGE"), os.Getenv("VM_PRODUCT")
	if image == "" || product == "" {
		t.Fatal("VM_IMAGE and VM_PRODUCT are not set; use make test-vm")
	}
	w := world{out: os.Getenv("VM_OUT"), base: machine.Config{
		Kernel: filepath.Join(image, "vmlinuz"), Initrd: filepath.Join(image, "initrd"), Debian: filepath.Join(image, "debian.img"),
		Product: product, MiB: 2048, CPUs: 2,
	}}
	switch accel := os.Getenv("VM_ACCEL"); accel {
	case "tcg":
	case "kvm":
		w.base.KVM = true
	case "":
		w.base.KVM = probe(t, w.base)
	default:
		t.Fatalf("VM_ACCEL is %q, want kvm, tcg or nothing", accel)
	}
	t.Logf("KVM: %v", w.base.KVM)
	return w
}

// probe asks for KVM by booting a small machine with it. Where KVM works that takes two seconds.
func probe(t *testing.T, cfg machine.Config) bool {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl-vm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg.Dir, cfg.Addr, cfg.MiB = dir, "192.168.77.9/24", 512
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return machine.KVM(ctx, cfg)
}
