package reap

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

// scene is one host at two moments, a grace time apart.
type scene struct {
	res        Resource
	others     []Resource
	containers []container.Container // at both moments
	before     []container.Container // at the first moment only
	gone       []container.Tombstone
	runtimes   func(now time.Time) []container.RuntimeState
	busy       bool
	apart      time.Duration
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ctrd(answered bool) func(time.Time) []container.RuntimeState {
	return func(now time.Time) []container.RuntimeState {
		return []container.RuntimeState{{Name: "containerd", Socket: "/run/c.sock", Answered: answered, Asked: now, Since: noon}}
	}
}

// play gives the verdicts at the two moments.
func (s scene) play(t *testing.T) (first, second Verdict) {
	t.Helper()
	record := Record{}
	now := noon
	one := func(more []container.Container) Verdict {
		var v []Verdict
		in := Input{
			Seen: &container.Snapshot{Containers: append(append([]container.Container{}, s.containers...), more...), Gone: s.gone, Runtimes: s.runtimes(now)},
			Have: append([]Resource{s.res}, s.others...), At: now, Before: record, Boot: "b", Now: now, Rules: Rules{Grace: time.Minute, Busy: time.Hour},
		}
		if s.busy {
			in.Busy = map[container.ID]bool{"web": true}
		}
		v, record = Plan(in)
		for _, one := range v {
			if one.Resource.ID == s.res.ID {
				return one
			}
		}
		t.Fatal("no verdict")
		return Verdict{}
	}
	first = one(s.before)
	if s.apart == 0 {
		s.apart = time.Minute
	}
	now = now.Add(s.apart)
	return first, one(nil)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	ns, other := host.NetNS{Dev: 4, Ino: 7}, host.NetNS{Dev: 4, Ino: 8}
	state := Resource{Kind: State, ID: "/run/c/web", Claim: Claim{Runtimes: []string{"containerd"}, Namespace: "default", ID: "web"}}
	file := Resource{Kind: NetNS, ID: "/run/netns/x", Claim: Claim{NetNS: ns}}
	inhabited := file
	inhabited.PIDs = []int{42}
	cgroup := Resource{Kind: Cgroup, ID: "/default/web", Weak: true, Since: noon.Add(-time.Hour), Claim: Claim{Cgroup: "/default/web"}}
	younger := cgroup
	younger.Since = noon
	address := Resource{Kind: Attachment, ID: "default-web/eth0", Claim: Claim{CNI: "default-web", NetNS: ns}}
	adrift := Resource{Kind: Process, ID: "default/web", Adrift: true, PIDs: []int{42}, Claim: state.Claim}
	veth := Resource{Kind: Link, ID: "veth1", ReportOnly: "nothing shows its other end"}
	web := container.Container{ID: "web", Name: "web", Runtime: "containerd", Namespace: "default", State: container.Running, PID: 42, NetNS: ns,
		Started: noon.Add(-time.Minute), Cgroup: host.Membership{Unified: "/default/web"}}
	guarded := web
	guarded.Labels = map[string]string{"fairlead.protect": "yes"}
	restarted := web
	restarted.NetNS = other
	pod := container.Container{ID: "default-web", Name: "x", Runtime: "cni", State: container.Running, NetNS: ns}
	web2 := web
	web2.Namespace = "other"
	list := func(c ...container.Container) []container.Container { return c }
	tomb := func(c container.Container) []container.Tombstone {
		return []container.Tombstone{{Container: c, Removed: noon}}
	}
	for name, c := range map[string]struct {
		scene
		first, second Why
		reason        string
	}{
		"what a listed container has is owned":                  {scene{res: state, containers: list(web), runtimes: ctrd(true)}, Owned, Owned, "containerd lists its container as running"},
		"another namespace's container of that name is not it":  {scene{res: state, containers: list(web2), runtimes: ctrd(true)}, Waiting, Orphan, "is gone"},
		"ownerless twice, a grace apart, is an orphan":          {scene{res: state, runtimes: ctrd(true)}, Waiting, Orphan, "its container containerd default/web is gone and nothing lives in it"},
		"before the grace it waits":                             {scene{res: state, runtimes: ctrd(true), apart: 59 * time.Second}, Waiting, Waiting, "confirmed after a grace of 1m0s"},
		"an owner that went just now begins a grace":            {scene{res: state, before: list(web), runtimes: ctrd(true)}, Owned, Waiting, "no runtime has listed"},
		"a runtime that does not answer keeps":                  {scene{res: state, runtimes: ctrd(false)}, Unanswered, Unanswered, "no runtime has answered that is a containerd"},
		"without any runtime it is kept":                        {scene{res: file, runtimes: func(time.Time) []container.RuntimeState { return nil }}, Unanswered, Unanswered, "no runtime has answered here"},
		"one that stopped answering keeps":                      {scene{res: state, runtimes: func(now time.Time) []container.RuntimeState { return ctrd(now.Equal(noon))(now) }}, Waiting, Unanswered, "containerd has not answered since"},
		"one that fell silent right after its list keeps":       {scene{res: state, runtimes: silentAfter(noon)}, Waiting, Unanswered, "containerd has not answered since 2026-11-21 12:01:00Z"},
		"one that vanished keeps":                               {scene{res: state, runtimes: onlyAt(noon)}, Waiting, Unanswered, "containerd on /run/c.sock is not there; it last answered 2026-11-21 12:00:00Z"},
		"an old list says nothing":                              {scene{res: state, runtimes: func(time.Time) []container.RuntimeState { return ctrd(true)(noon) }}, Waiting, Unanswered, "has given no complete list since"},
		"processes keep":                                        {scene{res: inhabited, runtimes: ctrd(true)}, Alive, Alive, "alive, kept: process 42"},
		"processes keep what else their container has":          {scene{res: state, others: []Resource{{Kind: Cgroup, ID: "/x", PIDs: []int{42}, Claim: Claim{ID: "web"}}}, runtimes: ctrd(true)}, Alive, Alive, "process 42"},
		"a process without its shim is told even when owned":    {scene{res: adrift, containers: list(web), runtimes: ctrd(false)}, Alive, Alive, "alive, kept: process 42 lives on although its shim is dead"},
		"the label protect keeps after the end":                 {scene{res: state, gone: tomb(guarded), runtimes: ctrd(true)}, Protected, Protected, "fairlead.protect"},
		"a part that is not done keeps":                         {scene{res: state, busy: true, runtimes: ctrd(true)}, Busy, Busy, "still works"},
		"but not for ever":                                      {scene{res: state, busy: true, apart: 61 * time.Minute, runtimes: ctrd(true)}, Busy, Orphan, "is gone"},
		"a file that was nobody's is reported only":             {scene{res: file, runtimes: ctrd(true)}, Waiting, Unproven, "nothing proves whose it was"},
		"a file with a listed container's address is its":       {scene{res: file, others: []Resource{address}, containers: list(web), runtimes: ctrd(true)}, Owned, Owned, "lists"},
		"a buried container's namespace number proves nothing":  {scene{res: file, gone: tomb(web), runtimes: ctrd(true)}, Waiting, Unproven, "nothing proves"},
		"a cgroup of nobody is passed over":                     {scene{res: cgroup, runtimes: ctrd(true)}, Unknown, Unknown, "nothing shows"},
		"a cgroup older than its buried container is its":       {scene{res: cgroup, gone: tomb(web), runtimes: ctrd(true)}, Waiting, Orphan, "containerd default/web is gone"},
		"a cgroup younger than the buried container is not":     {scene{res: younger, gone: tomb(web), runtimes: ctrd(true)}, Unknown, Unknown, "nothing shows"},
		"an address knows ctr's container":                      {scene{res: address, containers: list(web), runtimes: ctrd(true)}, Owned, Owned, "lists"},
		"an address does not keep itself":                       {scene{res: address, containers: list(pod), gone: tomb(web), runtimes: ctrd(true)}, Waiting, Orphan, "is gone"},
		"what a detector will not have removed is reported":     {scene{res: veth, runtimes: ctrd(true)}, Waiting, Unproven, "nothing shows its other end"},
		"a namespace that was left by a restart is an orphan's": {scene{res: inhabitedOnce(file), containers: list(restarted), runtimes: ctrd(true)}, Waiting, Unproven, "nothing proves"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := c.play(t)
			if first.Why != c.first || second.Why != c.second || !strings.Contains(second.Reason, c.reason) {
				t.Errorf("first %s, then %s (%s), want %s, then %s (%s)", first.Why, second.Why, second.Reason, c.first, c.second, c.reason)
			}
			if want := map[Why]Decision{Orphan: Sweep, Unproven: Report}[second.Why]; second.Decision != want && (want != "" || second.Decision != Keep) {
				t.Errorf("%s is %s", second.Why, second.Decision)
			}
			if second.Decision == Sweep && len(second.Evidence) < 2 {
				t.Errorf("evidence is %q", second.Evidence)
			}
		})
	}
}

func onlyAt(moment time.Time) func(time.Time) []container.RuntimeState {
	return func(now time.Time) []container.RuntimeState {
		if !now.Equal(moment) {
			return nil
		}
		return ctrd(true)(now)
	}
}

// silentAfter answers at the moment, and later only with a list and then no more.
func silentAfter(moment time.Time) func(time.Time) []container.RuntimeState {
	return func(now time.Time) []container.RuntimeState {
		s := ctrd(now.Equal(moment))(now)
		if !s[0].Answered {
			s[0].Since = now
		}
		return s
	}
}

func inhabitedOnce(r Resource) Resource { r.Instance = "cookie 5"; return r }

func TestClockSetBackBeginsTheGraceAnew(t *testing.T) {
	t.Parallel()
	res := Resource{Kind: State, ID: "/run/c/web", Claim: Claim{Runtimes: []string{"containerd"}, ID: "web"}}
	record := Record{}
	for i, now := range []time.Time{noon, noon.Add(-time.Hour), noon.Add(-time.Hour + time.Second)} {
		var v []Verdict
		v, record = Plan(Input{Seen: &container.Snapshot{Runtimes: ctrd(true)(now)}, Have: []Resource{res}, At: now, Before: record, Boot: "b", Now: now, Rules: Rules{Grace: time.Minute}})
		if v[0].Why != Waiting {
			t.Fatalf("observation %d: %s", i, v[0].Why)
		}
	}
}

func TestRecordOfAnotherBootIsVoidButItsRuntimesAreKnown(t *testing.T) {
	t.Parallel()
	res := Resource{Kind: NetNS, ID: "/run/netns/x"}
	in := Input{Seen: &container.Snapshot{Runtimes: ctrd(true)(noon)}, Have: []Resource{res}, At: noon, Boot: "one", Now: noon, Rules: Rules{Grace: time.Minute}}
	_, in.Before = Plan(in)
	in.Boot, in.Now, in.At = "two", noon.Add(time.Hour), noon.Add(time.Hour)
	in.Seen = &container.Snapshot{Runtimes: ctrd(true)(in.Now)}
	if v, _ := Plan(in); v[0].Why != Waiting {
		t.Errorf("after a reboot: %s", v[0].Why)
	}
	in.Seen = &container.Snapshot{}
	if v, _ := Plan(in); v[0].Why != Unanswered {
		t.Errorf("after a reboot, before the runtime is up: %s", v[0].Why)
	}
}

func TestWhatAPartCouldNotListIsNotForgotten(t *testing.T) {
	t.Parallel()
	res := Resource{Kind: State, ID: "/run/c/web", Claim: Claim{Runtimes: []string{"containerd"}, ID: "web"}}
	in := Input{Seen: &container.Snapshot{Runtimes: ctrd(true)(noon)}, Have: []Resource{res}, At: noon, Boot: "b", Now: noon, Rules: Rules{Grace: time.Minute}}
	_, in.Before = Plan(in)
	in.Have, in.Partial = nil, true
	if _, next := Plan(in); len(next.Entries) != 1 {
		t.Errorf("entries are %v", next.Entries)
	}
	in.Partial = false
	if _, next := Plan(in); len(next.Entries) != 0 {
		t.Errorf("entries of what is gone are %v", next.Entries)
	}
}

func TestVerdictNamesAFewProcessesOnly(t *testing.T) {
	t.Parallel()
	for want, pids := range map[string][]int{
		"process 42 lives in it":                {42},
		"processes 42 43 44 live in it":         {42, 43, 44},
		"processes 1 2 3 and 2 more live in it": {1, 2, 3, 4, 5},
	} {
		if got := live(pids, "in it"); got != want {
			t.Errorf("%v: %q, want %q", pids, got, want)
		}
	}
}
