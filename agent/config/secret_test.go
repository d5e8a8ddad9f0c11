package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReferencesAreResolvedAndNeverShown(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("hunter2 \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAIRLEAD_TEST_PASSWORD", "s3cret")
	t.Setenv("FAIRLEAD_TEST_VNI", "4242")
	text := fmt.Sprintf(`
overlay: {networks: [{name: "$${env:X}", vni: "${env:FAIRLEAD_TEST_VNI}"}]}
logship:
  sinks:
    - name: central
      address: tcp://me:${env:FAIRLEAD_TEST_PASSWORD}@logs:601
      token: ${file:%s}
`, file)
	into := defaults()
	f, err := Decode("fairlead.yaml", []byte(text), &into)
	if err != nil {
		t.Fatal(err)
	}
	s := into.Logship.Sinks[0]
	if s.Address != "tcp://me:s3cret@logs:601" || s.Token != `hunter2 "x"` || into.Overlay.Networks[0].VNI != 4242 || into.Overlay.Networks[0].Name != "${env:X}" {
		t.Errorf("resolved to %+v %+v", s, into.Overlay.Networks)
	}

	var yaml, json strings.Builder
	if err := Print(&yaml, into, f); err != nil {
		t.Fatal(err)
	}
	if err := PrintJSON(&json, &into, f); err != nil {
		t.Fatal(err)
	}
	located := f.Locate(fmt.Errorf("logship.sinks[0].token: %q is no token at %s", s.Token, s.Address)).Error()
	for what, shown := range map[string]string{"print": yaml.String(), "print --json": json.String(), "a problem": located} {
		for _, hidden := range []string{"s3cret", "hunter2", "4242"} {
			if strings.Contains(shown, hidden) {
				t.Errorf("%s shows %q:\n%s", what, hidden, shown)
			}
		}
		if !strings.Contains(shown, "${env:FAIRLEAD_TEST_PASSWORD}") {
			t.Errorf("%s does not show the reference:\n%s", what, shown)
		}
	}
	again := defaults()
	if _, err := Decode("print", []byte(yaml.String()), &again); err != nil {
		t.Fatalf("what was printed does not decode: %v\n%s", err, yaml.String())
	}
	if again.Logship.Sinks[0] != s || again.Overlay.Networks[0].Name != "${env:X}" {
		t.Errorf("printed and decoded again: %+v %+v", again.Logship.Sinks, again.Overlay.Networks)
	}
}

func TestWrongValueOfAReferenceIsNotShown(t *testing.T) {
	t.Setenv("FAIRLEAD_TEST_PASSWORD", "s3cret")
	for _, text := range []string{
		"orphans: {grace: '${env:FAIRLEAD_TEST_PASSWORD}'}", "node:\n  address: ${env:FAIRLEAD_TEST_PASSWORD}",
		"overlay: {networks: [{vni: '${env:FAIRLEAD_TEST_PASSWORD}'}]}",
	} {
		var into agentFile
		_, err := Decode("f", []byte(text), &into)
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "in ${env:FAIRLEAD_TEST_PASSWORD}") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestReferenceThatCannotBeResolvedIsAProblem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"${env:FAIRLEAD_TEST_ABSENT}": "f:1: listen: ${env:FAIRLEAD_TEST_ABSENT}: the environment has no variable FAIRLEAD_TEST_ABSENT",
		"${file:/does/not/exist}":     "f:1: listen: ${file:/does/not/exist}: stat /does/not/exist: no such file or directory",
		"${file:/dev/zero}":           "f:1: listen: ${file:/dev/zero}: not a regular file",
		"${file:" + big + "}":         "f:1: listen: ${file:" + big + "}: has 65537 bytes, more than 65536",
		"${file:relative}":            "f:1: listen: unknown reference ${file:relative}; write ${env:NAME} or ${file:/path}, or $${ for a plain ${",
		"a ${HOME} b":                 "f:1: listen: unknown reference ${HOME}; write ${env:NAME} or ${file:/path}, or $${ for a plain ${",
		"a ${env:X":                   "f:1: listen: a ${ without its }; write $${ for a plain ${",
	} {
		var into agentFile
		if _, err := Decode("f", []byte("listen: "+text), &into); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestEscapeAndResolveAreInverse(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "$", "$$", "${", "$${", "$$${", "a${b}c", "$x", "{", "${${"} {
		if got, refs, err := resolve(escape(s)); got != s || refs != nil || err != nil {
			t.Errorf("%q became %q, %v, %v", s, got, refs, err)
		}
	}
}
