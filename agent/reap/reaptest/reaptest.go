// Package reaptest is a small host on which containers, runtimes, shims and the agent live and die at random, to try
// reap.Plan against what is true. It is pure: time and chance are its own.
package reaptest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// Grace is the grace of the model's rules.
const Grace = 60 * time.Second

// Result is what a run of the model came to.
type Result struct {
	Rounds, Passes, Swept, Orphans int
	Wrong, Missed                  []string // each with what is needed to understand it
}

// Run plays rounds of chance from seed. spoil, when given, damages what Plan is told, to see that the model notices.
func Run(seed uint64, rounds int, spoil func(*reap.Input)) Result {
	m := &model{rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_800_000_000, 0), spoil: spoil, ns: map[uint64]*namespace{}, guarded: map[container.ID]bool{}}
	for _, s := range []struct{ name, socket, namespace string }{
		{"containerd", "/run/containerd.sock", "default"}, {"docker", "/run/docker.sock", ""}, {"containerd@/run/k3s.sock", "/run/k3s.sock", "k8s.io"},
	} {
		m.runtimes = append(m.runtimes, &runtime{name: container.Runtime(s.name), socket: s.socket, namespace: s.namespace, up: true})
	}
	for m.Rounds < rounds && len(m.Wrong)+len(m.Missed) < 10 {
		m.Rounds++
		m.round()
	}
	return m.Result
}

type model struct {
	Result
	rng      *rand.Rand
	now      time.Time
	spoil    func(*reap.Input)
	runtimes []*runtime
	boxes    []*box   // every container that has a record, a process or something left
	things   []*thing // everything there is on the host
	cookies  int      // instances never repeat
	serial   int      // drawn ids never repeat
	record   reap.Record
	gone     []container.Tombstone
	guarded  map[container.ID]bool // names that a protected container has borne
	ns       map[uint64]*namespace // by inode; the lowest free one is taken, as the kernel does
}

// runtime is a daemon: up and answering or not, and what the agent last heard of it.
type runtime struct {
	name              container.Runtime
	socket, namespace string
	up, known         bool
	slow              bool      // it answers, but not with a list
	restoring         time.Time // until then its lists are not complete
	since             time.Time // when the agent saw it go or come
	asked             time.Time
	heard             []container.Container
}

// namespace is a network namespace: held by a file, by processes, or both.
type namespace struct {
	ino    uint64
	cookie int
	users  []*box // all that ever lived in it
}

// box is a container.
type box struct {
	id       container.ID
	rt       *runtime
	recorded bool // its runtime has a record of it
	recordAt time.Time
	pid      int // 0: dead
	started  time.Time
	shim     bool
	ns       *namespace
	lived    []*namespace // all that it ever had
	protect  bool
}

// thing is a resource with its truth.
type thing struct {
	res     reap.Resource
	owner   *box // nil: somebody whom no runtime knows, who wants it
	ns      *namespace
	first   time.Time // pass at which it was first an orphan with everybody answering
	overdue int       // passes since its grace, with everybody answering
}

func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) round() {
	m.now = m.now.Add(time.Duration(1+m.rng.IntN(25)) * time.Second)
	for range 1 + m.rng.IntN(3) {
		m.event()
	}
	m.pass(m.chance(30))
}

// event changes the host, in the way of the daemons or in the way of the night.
func (m *model) event() {
	m.now = m.now.Add(time.Millisecond)
	rt := m.runtimes[m.rng.IntN(len(m.runtimes))]
	b := m.someBox()
	switch n := m.rng.IntN(100); {
	case n < 30 && len(m.boxes) < 12:
		m.create(rt)
	case n < 34 && b != nil: // the process ends
		b.pid = 0
	case n < 40 && b != nil: // the shim dies, the process lives on
		b.shim = false
		m.drop(func(t *thing) bool { return t.owner == b && t.res.Kind == reap.Shim })
	case n < 48 && b != nil: // killed with its shim
		b.pid, b.shim = 0, false
		m.drop(func(t *thing) bool { return t.owner == b && t.res.Kind == reap.Shim })
	case n < 66 && b != nil && b.rt.up: // removed in order, or forgotten with all it had
		m.remove(b)
	case n < 74: // down or up again
		rt.up, rt.slow, rt.since = !rt.up, false, m.now
		if rt.up {
			rt.restoring = m.now.Add(time.Duration(m.rng.IntN(20)) * time.Second)
		}
	case n < 76:
		rt.slow = !rt.slow
	case n < 79:
		m.restartAgent()
	case n < 85:
		m.stranger()
	case n < 88: // a stranger takes his things away
		m.drop(func(t *thing) bool { return t.owner == nil && m.chance(30) })
	case b != nil && b.pid == 0 && b.recorded && b.rt.up: // started again
		m.start(b)
	}
}

func (m *model) someBox() *box {
	if len(m.boxes) == 0 {
		return nil
	}
	return m.boxes[m.rng.IntN(len(m.boxes))]
}

func (m *model) create(rt *runtime) {
	if !rt.up {
		return
	}
	b := &box{rt: rt, protect: m.chance(5)}
	if rt.namespace == "default" && m.chance(60) {
		b.id = container.ID(fmt.Sprintf("web%d", m.rng.IntN(6))) // people's names come again
		if slices.ContainsFunc(m.boxes, func(o *box) bool { return o.id == b.id }) {
			return
		}
	} else {
		m.serial++
		b.id = container.ID(fmt.Sprintf("%064x", m.serial))
	}
	if b.protect {
		m.guarded[b.id] = true
	}
	// Kubernetes' sandboxes have network and directories before they have a record.
	b.recorded = !m.chance(30)
	b.recordAt = m.now.Add(time.Duration(m.rng.IntN(20)) * time.Second)
	m.boxes = append(m.boxes, b)
	m.start(b)
}

// start gives a container a process and everything that it needs on the host.
func (m *model) start(b *box) {
	// A cgroup that is there already is taken over, as runc does.
	m.drop(func(t *thing) bool { return t.owner == b || t.res.ID == m.cgroup(b) })
	m.serial++
	b.pid, b.shim, b.started = m.serial, true, m.now
	if o := m.someBox(); m.chance(15) && o != b && o.ns != nil && o.pid != 0 && o.rt == b.rt {
		b.ns = o.ns // a pod
	} else {
		b.ns = m.newNS()
		m.add(b, b.ns, reap.Resource{Kind: reap.NetNS, ID: fmt.Sprintf("/run/netns/%d", b.ns.ino), Instance: fmt.Sprint(b.ns.cookie)})
		cni := string(b.id)
		if b.rt.namespace == "default" {
			cni = "default-" + cni
		}
		m.add(b, b.ns, reap.Resource{Kind: reap.Attachment, ID: cni + "/eth0", Claim: reap.Claim{CNI: cni}})
	}
	b.ns.users, b.lived = append(b.ns.users, b), append(b.lived, b.ns)
	made := reap.Claim{Runtimes: []string{kindOf(b.rt)}, ID: b.id, Namespace: b.rt.namespace}
	m.add(b, nil, reap.Resource{Kind: reap.State, ID: "/run/state/" + b.rt.namespace + "/" + string(b.id), Claim: made})
	m.add(b, nil, reap.Resource{Kind: reap.Cgroup, ID: m.cgroup(b), Weak: true, Claim: reap.Claim{Cgroup: m.cgroup(b)}, Since: m.now})
	m.add(b, nil, reap.Resource{Kind: reap.Mount, ID: m.upper(b) + "/merged", Weak: true, Claim: reap.Claim{Upper: m.upper(b)}})
	made.Sockets = []string{b.rt.socket}
	m.add(b, nil, reap.Resource{Kind: reap.Shim, ID: "shim " + string(b.id), Claim: made})
}

func kindOf(rt *runtime) string {
	if rt.name == "docker" {
		return "docker"
	}
	return "containerd"
}

func (m *model) cgroup(b *box) string { return "/" + b.rt.namespace + "x/" + string(b.id) }
func (m *model) upper(b *box) string {
	return fmt.Sprintf("/var/snapshots/%s/%s-%d", b.rt.name, b.id, b.pid)
}

func (m *model) newNS() *namespace {
	m.cookies++
	n := &namespace{ino: 1, cookie: m.cookies}
	for m.ns[n.ino] != nil {
		n.ino++
	}
	m.ns[n.ino] = n
	return n
}

func (m *model) add(b *box, ns *namespace, r reap.Resource) {
	if r.Instance == "" {
		m.cookies++
		r.Instance = fmt.Sprint(m.cookies)
	}
	m.cookies++
	r.Where = fmt.Sprint(m.cookies) // by which the model knows it again, whatever is spoilt
	m.things = append(m.things, &thing{res: r, owner: b, ns: ns})
}

// remove forgets a container; its runtime clears what it had, or is hindered at some point.
func (m *model) remove(b *box) {
	if b.pid != 0 && !m.chance(10) {
		b.pid = 0
	}
	b.recorded, b.recordAt = false, time.Time{}
	orderly := m.chance(50)
	m.drop(func(t *thing) bool {
		return t.owner == b && (orderly && b.pid == 0 || m.chance(50) && b.pid == 0)
	})
}

// stranger makes things that nobody's container has, and that somebody wants.
func (m *model) stranger() {
	m.serial++
	switch m.rng.IntN(3) {
	case 0:
		ns := m.newNS()
		m.add(nil, ns, reap.Resource{Kind: reap.NetNS, ID: fmt.Sprintf("/run/netns/%d", ns.ino), Instance: fmt.Sprint(ns.cookie)})
		m.add(nil, ns, reap.Resource{Kind: reap.Attachment, ID: fmt.Sprintf("own%d/eth0", m.serial), Claim: reap.Claim{CNI: fmt.Sprintf("own%d", m.serial)}})
	case 1:
		path := fmt.Sprintf("/defaultx/web%d", m.rng.IntN(6)) // as a container's once was
		if !slices.ContainsFunc(m.things, func(t *thing) bool { return t.res.ID == path }) {
			m.add(nil, nil, reap.Resource{Kind: reap.Cgroup, ID: path, Weak: true, Claim: reap.Claim{Cgroup: path}, Since: m.now})
		}
	case 2:
		m.add(nil, nil, reap.Resource{Kind: reap.Mount, ID: fmt.Sprintf("/mnt/%d", m.serial), Weak: true, Claim: reap.Claim{Upper: fmt.Sprintf("/srv/%d", m.serial)}})
	}
}

// drop takes things off the host, and namespaces that nothing holds any more.
func (m *model) drop(which func(*thing) bool) {
	m.things = slices.DeleteFunc(m.things, which)
	m.boxes = slices.DeleteFunc(m.boxes, func(b *box) bool {
		return !b.recorded && b.recordAt.IsZero() && b.pid == 0 && !slices.ContainsFunc(m.things, func(t *thing) bool { return t.owner == b })
	})
	held := map[*namespace]bool{}
	for _, t := range m.things {
		if t.res.Kind == reap.NetNS {
			held[t.ns] = true
		}
	}
	for _, b := range m.boxes {
		if b.pid != 0 {
			held[b.ns] = true
		}
	}
	for ino, n := range m.ns {
		if !held[n] {
			delete(m.ns, ino)
			// With its namespace an attachment's link has gone, and the overlay ends it.
			m.things = slices.DeleteFunc(m.things, func(t *thing) bool { return t.ns == n })
		}
	}
}

// restartAgent loses all that is not a promise, which goes through its file.
func (m *model) restartAgent() {
	b, err := json.Marshal(m.record)
	if err != nil {
		panic(err)
	}
	m.record = reap.Record{}
	if err := json.Unmarshal(b, &m.record); err != nil {
		panic(err)
	}
	m.gone = nil
	for _, rt := range m.runtimes {
		rt.known, rt.heard = false, nil
	}
}

// pass is one observation, and what comes of it when clean is told to act.
func (m *model) pass(clean bool) {
	m.drop(func(*thing) bool { return false })
	m.Passes++
	at := m.now
	have := m.collect()
	m.now = m.now.Add(time.Second)
	for _, b := range m.boxes { // records that were on their way
		if !b.recorded && !b.recordAt.IsZero() && !b.recordAt.After(m.now) {
			b.recorded, b.recordAt = true, time.Time{}
		}
	}
	if m.chance(20) { // somebody makes a container just now
		m.create(m.runtimes[m.rng.IntN(len(m.runtimes))])
	}
	seen := m.list()
	in := reap.Input{Seen: seen, Have: have, At: at, Before: m.record, Boot: "boot", Now: m.now, Rules: reap.Rules{Grace: Grace, Busy: time.Hour}}
	if m.spoil != nil {
		m.spoil(&in)
	}
	verdicts, next := reap.Plan(in)
	m.record = next
	m.judge(verdicts, m.allAnswer())
	if clean {
		m.clean(verdicts)
	}
}

// collect is what detectors and parts see.
func (m *model) collect() []reap.Resource {
	var have []reap.Resource
	for _, t := range m.things {
		r := t.res
		r.PIDs = nil
		if t.ns != nil {
			r.Claim.NetNS = host.NetNS{Dev: 4, Ino: t.ns.ino}
		}
		r.PIDs = m.pids(t)
		have = append(have, r)
	}
	m.rng.Shuffle(len(have), func(i, j int) { have[i], have[j] = have[j], have[i] })
	return have
}

// pids are the processes that are seen in the thing itself.
func (m *model) pids(t *thing) (pids []int) {
	for _, b := range m.boxes {
		if b.pid == 0 {
			continue
		}
		switch t.res.Kind {
		case reap.NetNS, reap.Attachment:
			if t.ns == b.ns {
				pids = append(pids, b.pid)
			}
		case reap.Cgroup, reap.Shim:
			if t.owner == b {
				pids = append(pids, b.pid)
			}
		case reap.State: // the record of the first process
			if t.owner == b {
				pids = append(pids, b.pid)
			}
		}
	}
	return pids
}

// list is what the inventory gives: fresh where a runtime answers, as last heard where it does not.
func (m *model) list() *container.Snapshot {
	s := &container.Snapshot{At: m.now}
	for _, rt := range m.runtimes {
		if rt.up && (rt.known || m.chance(80)) {
			if !rt.known {
				rt.known, rt.since = true, m.now
			}
			if !rt.slow {
				m.hear(rt)
			}
		}
		if rt.known {
			s.Runtimes = append(s.Runtimes, container.RuntimeState{Name: rt.name, Socket: rt.socket, Answered: rt.up, Since: rt.since, Asked: rt.asked})
			s.Containers = append(s.Containers, rt.heard...)
		}
	}
	m.gone = slices.DeleteFunc(m.gone, func(t container.Tombstone) bool { return m.now.Sub(t.Removed) > 10*time.Minute })
	s.Gone = slices.Clone(m.gone)
	return s
}

func (m *model) hear(rt *runtime) {
	before := rt.heard
	rt.heard, rt.asked = nil, m.now
	for _, b := range m.boxes {
		if b.rt == rt && b.recorded && (!rt.restoring.After(m.now) || b.pid%2 == 0) {
			rt.heard = append(rt.heard, m.told(b))
		}
	}
	for _, c := range before {
		if !slices.ContainsFunc(rt.heard, func(n container.Container) bool { return n.ID == c.ID }) {
			m.gone = append(m.gone, container.Tombstone{Container: c, Removed: m.now})
		}
	}
}

func (m *model) told(b *box) container.Container {
	c := container.Container{
		ID: b.id, Name: string(b.id), Runtime: b.rt.name, Namespace: b.rt.namespace, State: container.Exited,
		Cgroup: host.Membership{Unified: m.cgroup(b)}, Labels: map[string]string{}, Started: b.started,
	}
	if b.protect {
		c.Labels["fairlead.protect"] = "true"
	}
	for _, t := range m.things {
		if t.owner == b && t.res.Kind == reap.Mount {
			c.Rootfs.Upper = t.res.Claim.Upper
		}
	}
	if b.pid != 0 && b.shim { // without a shim, runtimes do not know of the process
		c.State, c.PID, c.NetNS = container.Running, b.pid, host.NetNS{Dev: 4, Ino: b.ns.ino}
	}
	return c
}

func (m *model) allAnswer() bool {
	return !slices.ContainsFunc(m.runtimes, func(rt *runtime) bool {
		return !rt.known || !rt.up || rt.slow || rt.restoring.After(m.now) || !rt.asked.Equal(m.now)
	})
}

// wanted tells whether somebody needs the thing: the truth that no detector sees whole.
func (m *model) wanted(t *thing) string {
	switch {
	case t.owner == nil:
		return "somebody whom no runtime knows"
	case t.owner.recorded || !t.owner.recordAt.IsZero():
		return "its container, which has a record"
	case t.owner.pid != 0:
		return "its container's process"
	}
	for _, b := range m.boxes {
		if t.ns != nil && b.ns == t.ns && b.pid != 0 {
			return "a process in its namespace"
		}
	}
	return ""
}

// judge compares the verdicts with the truth.
func (m *model) judge(verdicts []reap.Verdict, allAnswer bool) {
	of := map[string]reap.Verdict{}
	for _, v := range verdicts {
		of[v.Resource.Where] = v
	}
	for _, t := range m.things {
		v, ok := of[t.res.Where]
		if !ok {
			continue // made since
		}
		wanted := m.wanted(t)
		if v.Decision == reap.Sweep && wanted != "" {
			m.Wrong = append(m.Wrong, fmt.Sprintf("round %d: %s %s was to be swept (%s; %s) but is wanted by %s", m.Rounds, v.Resource.Kind, v.Resource.ID, v.Reason, v.Owner, wanted))
		}
		if wanted != "" || m.excused(t, v) {
			t.first, t.overdue = time.Time{}, 0
			continue
		}
		m.due(t, v, allAnswer)
	}
}

// excused tells whether an orphan may stay unreported: protected, of a pod that lives, under a name of its owner's or
// of somebody's of its pod that a listed container bears again, or without any sign that it ever was a container's.
func (m *model) excused(t *thing, v reap.Verdict) bool {
	if slices.ContainsFunc(m.kin(t.owner), func(b *box) bool { return b.pid != 0 }) {
		return true // somebody of its pod lives on, or bears the name of one: all that is the pod's stays
	}
	if t.ns != nil && slices.ContainsFunc(t.ns.users, func(b *box) bool { return b.recorded || b.pid != 0 || b.protect }) {
		return true // of several in a pod, one may still want it; or lives on elsewhere, which no name tells
	}
	former := []*box{t.owner}
	if t.ns != nil {
		former = append(former, t.ns.users...)
	}
	again := slices.ContainsFunc(m.boxes, func(b *box) bool {
		sameName := slices.ContainsFunc(former, func(f *box) bool { return b != f && b.id == f.id })
		return b != t.owner && (b.recorded || b.pid != 0) && (sameName || t.ns != nil && b.ns == t.ns)
	})
	return again || m.guarded[t.owner.id] && v.Why == reap.Protected || t.res.Weak && v.Why == reap.Unknown
}

// kin are the containers that ever shared a namespace or a name with b, or with one that did: by these the resources
// of one are known to be another's too.
func (m *model) kin(b *box) []*box {
	kin := []*box{b}
	for i := 0; i < len(kin); i++ {
		add := func(o *box) {
			if !slices.Contains(kin, o) {
				kin = append(kin, o)
			}
		}
		for _, ns := range kin[i].lived {
			for _, o := range ns.users {
				add(o)
			}
		}
		for _, o := range m.boxes {
			if o.id == kin[i].id {
				add(o)
			}
		}
	}
	return kin
}

// due notes since when an orphan could be known and complains when it is reported too late.
func (m *model) due(t *thing, v reap.Verdict, allAnswer bool) {
	if !allAnswer {
		return
	}
	watched := t.first
	for _, rt := range m.runtimes {
		if rt.since.After(watched) {
			watched = rt.since
		}
	}
	switch {
	case t.first.IsZero():
		t.first = m.now
		m.Orphans++
	case watched.After(t.first): // nobody knows what was there while a runtime was away
		t.first, t.overdue = m.now, 0
	}
	if m.now.Sub(t.first) < Grace {
		return
	}
	if t.overdue++; t.overdue >= 2 && v.Decision == reap.Keep {
		m.Missed = append(m.Missed, fmt.Sprintf("round %d: %s %s is an orphan since %s and was kept: %s, %s", m.Rounds, v.Resource.Kind, v.Resource.ID, m.now.Sub(t.first), v.Why, v.Reason))
	}
}

func (m *model) clean(verdicts []reap.Verdict) {
	swept := map[string]bool{}
	for _, v := range verdicts {
		if v.Decision == reap.Sweep {
			swept[v.Resource.Where] = true
			m.Swept++
		}
	}
	m.drop(func(t *thing) bool { return swept[t.res.Where] })
}
