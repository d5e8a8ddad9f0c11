package main

import (
	"strings"
	"testing"
)

func TestReportShowsClosingLinesFailuresAndWhyTestsWereSkipped(t *testing.T) {
	t.Parallel()
	const in = `{"Action":"start","Package":"m/a"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"    a_test.go:5: chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestSkipped","Output":"    a_test.go:9: needs podman: not found\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkipped"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.2s\n"}
{"Action":"fail","Package":"m/b"}
{"Action":"skip","Package":"m/empty"}
`
	const want = `ok  	m/a	0.1s
    b_test.go:7: got 1, want 2
FAIL	m/b	0.2s

skipped:
  m/a: TestSkipped: needs podman: not found

failed:
  m/b TestBad
  m/b

1 tests passed, 1 failed, 1 skipped
`
	var out strings.Builder
	s, err := read(strings.NewReader(in), &out)
	if err != nil {
		t.Fatal(err)
	}
	s.print(&out)
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	if s.good() {
		t.Error("a run with a failed test is called good")
	}
}

func TestRunOfNothingIsNotGood(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s, err := read(strings.NewReader("go: cannot find main module\n"), &out)
	if err != nil {
		t.Fatal(err)
	}
	if s.good() || !strings.Contains(out.String(), "cannot find main module") {
		t.Errorf("good is %v, printed %q; want the go command's words and false", s.good(), out.String())
	}
}
