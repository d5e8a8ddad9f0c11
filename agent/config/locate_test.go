package config

import (
	"errors"
	"fmt"
	"testing"
)

const located = `# a comment first
node:
  name: web1
overlay:
  networks:
    - name: blue
      vni: 0
    - {name: red}
orphans:
  keep:
    a: y
    a.b: x
`

func TestProblemsOfValidateGetTheirLine(t *testing.T) {
	t.Parallel()
	var into agentFile
	f, err := Decode("fairlead.yaml", []byte(located), &into)
	if err != nil {
		t.Fatal(err)
	}
	for key, line := range map[string]int{
		"node.name": 3, "node.address": 2, "overlay.networks[0].vni": 7, "overlay.networks[1].vni": 8,
		"overlay.networks[1].name": 8, "overlay.networks[2]": 5, "overlay.networks": 5, "listen": 1,
		"orphans.keep.a.b": 12, "orphans.keep.a": 11, "orphans.keep.a.c": 11, "orphans.keep.b": 10, "": 1,
		"node.name.x": 3, "overlay.networks[x]": 5, "overlay.networks[0": 5, "nodes": 1,
	} {
		if got := f.line(key); got != line {
			t.Errorf("%s: line %d, want %d", key, got, line)
		}
	}
	err = errors.Join(
		Under("overlay", errors.Join(
			Under("networks[0]", Problemf("vni", "%d is not between 1 and 16777215", 0)),
			errors.New("networks[1].cidr: required"),
			errors.New("without a key"),
			nil)),
		errors.New("listen: required"),
		fmt.Errorf("two causes: %w and %w", errors.New("one"), errors.New("other")),
	)
	want := `fairlead.yaml:1: listen: required
fairlead.yaml:1: two causes: one and other
fairlead.yaml:4: overlay: without a key
fairlead.yaml:7: overlay.networks[0].vni: 0 is not between 1 and 16777215
fairlead.yaml:8: overlay.networks[1].cidr: required`
	if got := f.Locate(err); got.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", got, want)
	}
}

func TestAValueThatCouldNotBeReadIsToldOnce(t *testing.T) {
	t.Parallel()
	var into agentFile
	f, err := Decode("fairlead.yaml", []byte("overlay:\n  networks:\n    - {name: blue, vni: many}\n"), &into)
	if err == nil {
		t.Fatal("no problem")
	}
	found := errors.Join(Problemf("overlay.networks[0].vni", "0 is not between 1 and 16777215"), Problemf("overlay.networks[0].cidr", "required"))
	if got := f.Locate(found); got == nil || got.Error() != "fairlead.yaml:3: overlay.networks[0].cidr: required" {
		t.Errorf("beside %q: %v", err, got)
	}
}

func TestNoProblemIsNoError(t *testing.T) {
	t.Parallel()
	if err := new(File).Locate(nil); err != nil {
		t.Errorf("Locate(nil) = %v", err)
	}
	if err := Under("overlay", nil); err != nil {
		t.Errorf("Under(nil) = %v", err)
	}
	if err := Under("overlay", errors.Join()); err != nil {
		t.Errorf("Under(no errors) = %v", err)
	}
}

func TestProblemsWithoutAFileNameTheirKey(t *testing.T) {
	t.Parallel()
	got := new(File).Locate(errors.New("listen: required"))
	if got.Error() != "listen: required" {
		t.Errorf("got %q", got)
	}
}
