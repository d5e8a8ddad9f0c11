package reap_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/agent/reap/reaptest"
)

const modelRounds = 10_000

func TestNothingWantedIsSweptAndEveryOrphanIsReportedOnARandomHost(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := reaptest.Run(seed, modelRounds, nil)
	t.Logf("%d rounds, %d passes, %d orphans, %d swept", r.Rounds, r.Passes, r.Orphans, r.Swept)
	if len(r.Wrong)+len(r.Missed) > 0 {
		t.Fatalf("seed %d\nwrong deletions:\n%s\nmissed:\n%s", seed, strings.Join(r.Wrong, "\n"), strings.Join(r.Missed, "\n"))
	}
	if r.Orphans < modelRounds/20 || r.Swept < modelRounds/20 {
		t.Fatalf("only %d orphans and %d swept: the model proves nothing", r.Orphans, r.Swept)
	}
}

func TestModelNoticesBrokenRules(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*reap.Input){
		"a runtime that does not answer has no containers": func(in *reap.Input) {
			seen := *in.Seen
			seen.Runtimes = slices.Clone(seen.Runtimes)
			for i := range seen.Runtimes {
				if rt := &seen.Runtimes[i]; !rt.Answered {
					seen.Containers = slices.DeleteFunc(slices.Clone(seen.Containers), func(c container.Container) bool { return c.Runtime == rt.Name })
					rt.Answered, rt.Asked = true, in.Now
				}
			}
			in.Seen = &seen
		},
		"a runtime that is not found does not count": func(in *reap.Input) {
			in.Before.Runtimes = maps.Clone(in.Before.Runtimes)
			maps.DeleteFunc(in.Before.Runtimes, func(socket string, _ reap.KnownRuntime) bool {
				return !slices.ContainsFunc(in.Seen.Runtimes, func(rt container.RuntimeState) bool { return rt.Socket == socket })
			})
		},
		"one observation is enough": func(in *reap.Input) { in.Rules.Grace = 0 },
		"processes do not count": func(in *reap.Input) {
			for i := range in.Have {
				in.Have[i].PIDs = nil
			}
		},
		"instances do not count": func(in *reap.Input) {
			for i := range in.Have {
				in.Have[i].Instance = ""
			}
		},
	} {
		r := reaptest.Run(1, modelRounds, spoil)
		if len(r.Wrong) == 0 {
			t.Errorf("%s: not noticed in %d rounds", name, r.Rounds)
		} else {
			t.Logf("%s: noticed in %s", name, r.Wrong[0])
		}
	}
}
