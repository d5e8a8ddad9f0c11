package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/host"
)

func recorded(t *testing.T) host.Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../testdata/v2")); err != nil {
		t.Fatal(err)
	}
	return host.Root{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}
}

func TestFactsAreReadThroughTheRootAndFollowProcessors(t *testing.T) {
	t.Parallel()
	root := recorded(t)
	r := NewReader(root)
	want := Facts{
		Cores: new(uint64(4)), PhysicalCores: new(uint64(2)), Sockets: new(uint64(1)),
		MemoryBytes: new(uint64(24684092 * 1024)), SwapBytes: new(uint64(2097148 * 1024)), SwapFreeBytes: new(uint64(2097148 * 1024)),
		MachineID: "5d41402abc4b2a76b9719d911017c592", SystemUUID: "5d41402abc4b2a76b9719d911017c592", BootID: "6f1d2c3b-0a9e-4f58-8c7d-5e4b3a291f06",
	}
	got, errs := r.Read()
	if diff := cmp.Diff(want, got); diff != "" || errs != nil {
		t.Errorf("%s %v", diff, errs)
	}
	if err := os.WriteFile(filepath.Join(root.Sys, "devices/system/cpu/online"), []byte("0,2-3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want.Cores = new(uint64(3))
	got, _ = r.Read()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a processor went offline: %s", diff)
	}
}

func TestWhatCannotBeReadIsUnknownAndNamed(t *testing.T) {
	t.Parallel()
	root := recorded(t)
	for _, p := range []string{filepath.Join(root.Proc, "meminfo"), filepath.Join(root.Sys, "devices/system/cpu/online")} {
		if err := os.WriteFile(p, []byte("0-99999999999\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, errs := NewReader(root).Read()
	if got.Cores != nil || got.MemoryBytes != nil || len(errs) != 2 {
		t.Errorf("got %+v, %v", got, errs)
	}
}

func FuzzProcessorListsAndMeminfo(f *testing.F) {
	f.Add("0-3,8")
	f.Add("MemTotal: 5 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		cpus, err := parseCPUList(text)
		if err == nil && (len(cpus) == 0 || len(cpus) > 1<<18) {
			t.Errorf("%d processors from %q", len(cpus), text)
		}
		parseMeminfo([]byte(text))
	})
}
