package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/reap"
)

func TestOrphansWithoutAnOperationOrWithAStrangersFlagIsMisuse(t *testing.T) {
	for _, args := range [][]string{{}, {"--config", "x"}, {"--json"}, {"ls", "--yes"}, {"undo", "x", "--yes"}, {"clean", "--all"}, {"undo"}, {"ls", "x"}, {"frob"}} {
		out, said, code := fairlead(t, append([]string{"orphans"}, args...)...)
		if code != 2 || out != "" || said == "" {
			t.Errorf("orphans %v: exit %d, printed %q, said %q", args, code, out, said)
		}
	}
}

func TestOrphansTakesFlagsWhereverTheyStand(t *testing.T) {
	socket := t.TempDir() + "/agent.sock"
	for _, args := range [][]string{{"--socket", socket, "clean", "--yes", "x"}, {"clean", "x", "--yes", "--socket", socket}, {"clean", "--socket", socket, "x"}} {
		_, said, code := fairlead(t, append([]string{"orphans"}, args...)...)
		if want := "fairlead agent is not running (no answer on " + socket + ")\n"; code != 1 || said != want {
			t.Errorf("orphans %v: exit %d, said %q", args, code, said)
		}
	}
}

func TestOrphansFitALineAndNameTheWholeIDOnce(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123abcd", 8)
	v := reap.Verdict{Ref: "3f0c2a91", Resource: reap.Resource{Kind: reap.Cgroup, ID: "/docker/" + long}, Owner: "docker " + long, Decision: reap.Sweep,
		Reason: "its container docker " + long + " is gone", Evidence: []string{"empty"}}
	var out bytes.Buffer
	printVerdicts(env{&out, &out}, []reap.Verdict{v})
	want := `REF       KIND    ID                    CONTAINER            VERDICT  REASON
3f0c2a91  cgroup  /docker/0123abcd0123  docker 0123abcd0123  sweep    its container docker 0123abcd0123 is gone

3f0c2a91  /docker/` + long + `
3f0c2a91  empty
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
