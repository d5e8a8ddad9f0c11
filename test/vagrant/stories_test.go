//go:build vm

package vagrant

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-dev/fairlead/test/vagrant/machine"
)

// lane is the last line that `make test-vm` prints.
var lane = struct {
	Lane    string `json:"lane"`
	Stories int    `json:"stories"`
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Seconds int    `json:"seconds"`
}{Lane: "vm"}

func TestMain(m *testing.M) {
	began := time.Now()
	code := m.Run()
	lane.Seconds = int(time.Since(began).Seconds())
	lane.Failed = lane.Stories - lane.Passed
	if lane.Stories == 0 {
		code = 1 // nothing was told, so nothing is known
	}
	b, _ := json.Marshal(lane) // numbers and a word
	fmt.Println(string(b))
	os.Exit(code)
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
			lane.Stories++
			t.Cleanup(func() {
				switch {
				case t.Skipped():
					lane.Stories--
				case !t.Failed():
					lane.Passed++
				}
			})
			testscript.RunT(inner{t}, testscript.Params{Files: []string{file}, Setup: w.setup, Cmds: w.commands(), RequireUniqueNames: true})
		})
	}
}

// inner runs the one story of a file in the test that was made for it, not in another one below it.
type inner struct{ *testing.T }

func (t inner) Run(_ string, f func(testscript.T)) { f(t) }
func (t inner) Parallel()                          {}
func (t inner) Verbose() bool                      { return testing.Verbose() }

// world is what all stories share.
type world struct {
	base machine.Config
	out  string // a directory in it for each story: consoles and journals
}

func newWorld(t *testing.T) world {
	t.Helper()
	image, product := os.Getenv("VM_IMAGE"), os.Getenv("VM_PRODUCT")
	if image == "" || product == "" {
		t.Fatal("VM_IMAGE and VM_PRODUCT are not set; use make test-vm")
	}
	w := world{out: os.Getenv("VM_OUT"), base: machine.Config{
		Kernel: filepath.Join(image, "vmlinuz"), Initrd: filepath.Join(image, "initrd"), Debian: filepath.Join(image, "debian.img"),
		Product: product, MiB: 1536, CPUs: 2,
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
