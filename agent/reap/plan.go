package reap

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

// Input is everything that Plan decides from.
type Input struct {
	Seen *container.Snapshot
	Have []Resource // what is there now, of everybody
	// At is when Have began to be read: a list that is older says nothing of what was made since.
	At      time.Time
	Partial bool // an Owner did not answer: what is not in Have may be there all the same
	Busy    map[container.ID]bool
	Before  Record
	Boot    string // this boot's id
	Now     time.Time
	Rules   Rules
}

// Plan gives a verdict for each resource, in the order of sweeping, and the record with which the next Plan is made.
func Plan(in Input) ([]Verdict, Record) {
	p := &planner{Input: in, roots: newRoots(in.Seen), next: in.Before.next(in.Boot, in.Seen), entries: make([]Entry, len(in.Have))}
	for i := range in.Have {
		p.entries[i] = p.witnessed(&in.Have[i])
	}
	p.relate()
	verdicts := make([]Verdict, 0, len(in.Have))
	for _, i := range sweepOrder(in.Have) {
		r := &in.Have[i]
		v := p.judge(r, &p.entries[i])
		v.Ref, v.Resource, v.Undo = r.Ref(), *r, r.Dir != ""
		v.Evidence = append(slices.Clone(r.Evidence), v.Evidence...)
		if e := p.entries[i]; !e.First.IsZero() || len(e.Witness) > 0 {
			p.next.Entries[r.key()] = e
		}
		verdicts = append(verdicts, v)
	}
	p.keepUnseen()
	return verdicts, p.next
}

// sweepOrder gives the indices of have by kind, then by id.
func sweepOrder(have []Resource) []int {
	order := make([]int, len(have))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(have[i].Kind.rank(), have[j].Kind.rank()), cmp.Compare(have[i].ID, have[j].ID))
	})
	return order
}

type planner struct {
	Input
	roots   *roots
	next    Record
	entries []Entry
	// living has the processes of everything that shares a container or a network namespace.
	living   map[string][]int
	livingNS map[host.NetNS][]int
	ownedNS  map[host.NetNS]*container.Container // a listed container that has something in the namespace
}

// witnessed gives a resource's entry with the containers put in that have it now, or had it until they were removed.
func (p *planner) witnessed(r *Resource) Entry {
	e := p.Before.entry(r, p.Boot)
	for _, c := range p.witnesses(r) {
		// Where the form of the resource names its container, only a wish of the container's needs to be remembered.
		if !r.Claim.proves() || protected(c) {
			e.Witness = remember(e.Witness, p.roots.witness(c))
		}
	}
	return e
}

// witnesses gives the containers that surely have, or had, the resource. A path or a number that somebody else may get
// next proves nothing by itself.
func (p *planner) witnesses(r *Resource) []*container.Container {
	lasting := r.Claim
	lasting.NetNS, lasting.Cgroup = host.NetNS{}, ""
	if c := p.roots.find(lasting); c != nil {
		return []*container.Container{c}
	}
	if c := p.roots.buried(r); c != nil {
		return []*container.Container{c}
	}
	if c := p.roots.byCgroup[r.Claim.Cgroup]; c != nil && (slices.Contains(r.PIDs, c.PID) || madeFor(c, r)) {
		return []*container.Container{c}
	}
	var out []*container.Container
	for _, c := range p.roots.byNetNS[r.Claim.NetNS] {
		if slices.Contains(r.PIDs, c.PID) {
			out = append(out, c)
		}
	}
	return out
}

// proves tells whether the form of the resource says which runtime's which container it was.
func (cl Claim) proves() bool { return cl.ID != "" && len(cl.Runtimes) > 0 }

// relate finds what is known of a resource by others of the same container or network namespace.
func (p *planner) relate() {
	p.living, p.livingNS, p.ownedNS = map[string][]int{}, map[host.NetNS][]int{}, map[host.NetNS]*container.Container{}
	for i := range p.Have {
		r := &p.Have[i]
		if !r.Claim.NetNS.IsZero() {
			if c := p.listed(r, &p.entries[i]); c != nil {
				p.ownedNS[r.Claim.NetNS] = c
			}
		}
		if len(r.PIDs) == 0 {
			continue
		}
		for _, name := range names(r, &p.entries[i]) {
			p.living[name] = append(p.living[name], r.PIDs...)
		}
		if !r.Claim.NetNS.IsZero() {
			p.livingNS[r.Claim.NetNS] = append(p.livingNS[r.Claim.NetNS], r.PIDs...)
		}
	}
}

// names are the words by which resources of one container know each other.
func names(r *Resource, e *Entry) []string {
	var out []string
	add := func(ns string, id container.ID) {
		if id == "" {
			return
		}
		out = append(out, string(id))
		if ns != "" {
			out = append(out, ns+"-"+string(id))
		}
	}
	add(r.Claim.Namespace, r.Claim.ID)
	add("", container.ID(r.Claim.CNI))
	for _, w := range e.Witness {
		add(w.Namespace, w.ID)
	}
	return out
}

// pids gives the processes that live in the resource or in something else of its container.
func (p *planner) pids(r *Resource, e *Entry) []int {
	all := slices.Clone(r.PIDs)
	for _, name := range names(r, e) {
		all = append(all, p.living[name]...)
	}
	if !r.Claim.NetNS.IsZero() {
		all = append(all, p.livingNS[r.Claim.NetNS]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// judge decides on one resource. The order of the questions is the order of the doubts.
func (p *planner) judge(r *Resource, e *Entry) Verdict {
	owner := p.owner(r, e)
	keep := func(why Why, format string, args ...any) Verdict {
		return Verdict{Owner: owner, Decision: Keep, Why: why, Reason: fmt.Sprintf(format, args...)}
	}
	if c := p.ownedBy(r, e); c != nil && !r.Adrift {
		e.First, e.Lists = time.Time{}, nil
		v := keep(Owned, "%s lists its container as %s", c.Runtime, c.State)
		v.Owner = p.roots.witness(c).String()
		if !p.Seen.Answered(c.Runtime) {
			v.Reason = fmt.Sprintf("%s does not answer; when it last did, it listed the container as %s", c.Runtime, c.State)
		}
		return v
	}
	if pids := p.pids(r, e); len(pids) > 0 {
		e.First, e.Lists = time.Time{}, nil
		if r.Adrift {
			return keep(Alive, "alive, kept: %s although its shim is dead", live(pids, "on"))
		}
		return keep(Alive, "alive, kept: %s, though no runtime lists its container", live(pids, "in it"))
	}
	if slices.ContainsFunc(e.Witness, func(w Witness) bool { return w.Protected }) {
		return keep(Protected, "its container had the label %s", protectLabel)
	}
	if r.Weak && len(e.Witness) == 0 {
		return keep(Unknown, "nothing shows that a container ever had it")
	}
	needs, missing := p.needs(r, e)
	if missing != "" {
		return keep(Unanswered, "%s; what may be its own is kept", missing)
	}
	seen := p.observe(e, needs)
	if p.busy(r, e) {
		return keep(Busy, "a part of the agent still works on what its container left")
	}
	if !seen {
		return keep(Waiting, "no runtime has listed its container since %s; to be confirmed after a grace of %s", stamp(e.First), p.Rules.Grace)
	}
	v := Verdict{Owner: owner, Decision: Sweep, Why: Orphan, Evidence: p.evidence(e, needs)}
	switch {
	case r.ReportOnly != "":
		v.Decision, v.Why, v.Reason = Report, Unproven, r.ReportOnly
	case !p.proven(r, e):
		v.Decision, v.Why, v.Reason = Report, Unproven, "nobody lists its owner and nothing lives in it, but nothing proves whose it was"
	default:
		v.Reason = fmt.Sprintf("its container %s is gone and nothing lives in it", owner)
	}
	return v
}

// ownedBy gives the listed container that has the resource, or something else in the same network namespace: a file
// of a namespace names nobody, but the address in it does.
func (p *planner) ownedBy(r *Resource, e *Entry) *container.Container {
	if c := p.listed(r, e); c != nil {
		return c
	}
	return p.ownedNS[r.Claim.NetNS]
}

func (p *planner) listed(r *Resource, e *Entry) *container.Container {
	if c := p.roots.find(r.Claim); c != nil {
		return c
	}
	for _, w := range e.Witness {
		c := p.roots.listed(w)
		elsewhere := c != nil && c.Alive() && !c.NetNS.IsZero() && !r.Claim.NetNS.IsZero() && c.NetNS != r.Claim.NetNS
		if c != nil && !elsewhere { // one that was started again has left its former namespace
			return c
		}
	}
	return nil
}

// owner names the container for people.
func (p *planner) owner(r *Resource, e *Entry) string {
	if len(e.Witness) > 0 {
		var all []string
		for _, w := range e.Witness {
			all = append(all, w.String())
		}
		return strings.Join(all, ", ")
	}
	if r.Claim.ID != "" {
		w := Witness{Runtime: "?", Namespace: r.Claim.Namespace, ID: r.Claim.ID}
		if len(r.Claim.Runtimes) > 0 {
			w.Runtime = container.Runtime(r.Claim.Runtimes[0])
		}
		return w.String()
	}
	return r.Claim.CNI
}

// needs gives the runtimes, by socket, whose word on the resource counts, or says which one has not spoken.
func (p *planner) needs(r *Resource, e *Entry) (sockets []string, missing string) {
	of := func(what string, match func(socket string, name container.Runtime) bool) {
		found := false
		for socket, k := range p.next.Runtimes {
			if match(socket, k.Name) {
				found = true
				sockets = append(sockets, socket)
			}
		}
		if !found && missing == "" {
			missing = "no runtime has answered " + what
		}
	}
	kinds := r.Claim.Runtimes
	if len(kinds) == 0 && p.ctrNamespace(r.Claim.CNI) != "" {
		kinds = []string{"containerd"}
	}
	for _, w := range e.Witness {
		of("on "+w.Socket, func(socket string, _ container.Runtime) bool { return socket == w.Socket })
	}
	for _, s := range r.Claim.Sockets {
		of("on "+s, func(socket string, _ container.Runtime) bool { return socket == s })
	}
	if len(r.Claim.Sockets) == 0 {
		for _, k := range kinds {
			of("that is a "+k, func(_ string, name container.Runtime) bool { return kind(name) == k })
		}
	}
	if len(e.Witness) == 0 && len(kinds) == 0 && len(r.Claim.Sockets) == 0 {
		of("here", func(string, container.Runtime) bool { return true })
	}
	slices.Sort(sockets)
	sockets = slices.Compact(sockets)
	for _, s := range sockets {
		if why := p.silent(s); why != "" && missing == "" {
			missing = why
		}
	}
	return sockets, missing
}

// silent says why the runtime's word does not count now, or nothing.
func (p *planner) silent(socket string) string {
	for _, rt := range p.Seen.Runtimes {
		switch {
		case rt.Socket != socket:
		case !rt.Answered:
			return fmt.Sprintf("%s has not answered since %s", rt.Name, stamp(rt.Since))
		case rt.Asked.Before(p.At):
			return fmt.Sprintf("%s has given no complete list since %s", rt.Name, stamp(rt.Asked))
		default:
			return ""
		}
	}
	k := p.next.Runtimes[socket]
	return fmt.Sprintf("%s on %s is not there; it last answered %s", k.Name, socket, stamp(k.Asked))
}

// observe notes that the resource is without an owner by the lists of needs, and tells whether that has now been seen
// twice, a grace time apart. A list from before a runtime, or the agent, was away does not count: a runtime that has
// just come back may not have found all its containers again, and two such lists in a row would agree.
func (p *planner) observe(e *Entry, needs []string) bool {
	if e.First.IsZero() || e.First.After(p.Now) { // the clock was set back: begin anew
		e.First, e.Lists = p.Now, nil
	}
	if e.Lists == nil {
		e.Lists = map[string]time.Time{}
	}
	seen := p.Now.Sub(e.First) >= p.Rules.Grace
	for _, s := range needs {
		asked := p.next.Runtimes[s].Asked
		first, ok := e.Lists[s]
		if !ok || first.After(asked) || first.Before(p.since(s)) {
			first, e.Lists[s] = asked, asked
		}
		seen = seen && asked.Sub(first) >= p.Rules.Grace
	}
	return seen
}

// since tells from when on the runtime has answered without a break.
func (p *planner) since(socket string) time.Time {
	for _, rt := range p.Seen.Runtimes {
		if rt.Socket == socket {
			return rt.Since
		}
	}
	return time.Time{}
}

func (p *planner) busy(r *Resource, e *Entry) bool {
	if p.Now.Sub(e.First) > p.Rules.Busy {
		return false
	}
	busy := p.Busy[r.Claim.ID] || p.Busy[container.ID(r.Claim.CNI)]
	for _, w := range e.Witness {
		busy = busy || p.Busy[w.ID]
	}
	return busy
}

// proven tells whether it is known that a container had the resource: by its form, or because one was seen to.
func (p *planner) proven(r *Resource, e *Entry) bool {
	return len(e.Witness) > 0 || r.Claim.proves() || p.ctrNamespace(r.Claim.CNI) != "" || isLongID(r.Claim.CNI)
}

// ctrNamespace gives the containerd namespace of a CNI id that `ctr` has made of "NAMESPACE-ID".
func (p *planner) ctrNamespace(cni string) string {
	for _, ns := range p.next.Namespaces {
		if strings.HasPrefix(cni, ns+"-") {
			return ns
		}
	}
	return ""
}

// isLongID tells the ids that runtimes draw: 64 hexadecimal digits.
func isLongID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

func (p *planner) evidence(e *Entry, needs []string) []string {
	var out []string
	for _, s := range needs {
		k := p.next.Runtimes[s]
		out = append(out, fmt.Sprintf("%s listed all its containers without it at %s and at %s", k.Name, stamp(e.Lists[s]), stamp(k.Asked)))
	}
	return append(out, "nothing lives in it")
}

// keepUnseen keeps the entries of what an Owner that did not answer may still have.
func (p *planner) keepUnseen() {
	if !p.Partial || p.Before.Boot != p.Boot {
		return
	}
	there := map[string]bool{}
	for i := range p.Have {
		there[p.Have[i].key()] = true
	}
	for key, e := range p.Before.Entries {
		if !there[key] {
			p.next.Entries[key] = e
		}
	}
}

// live says that processes live in something. It names a few: a verdict is one line of a table.
func live(pids []int, where string) string {
	const few = 3
	if len(pids) == 1 {
		return fmt.Sprintf("process %d lives %s", pids[0], where)
	}
	more := ""
	if len(pids) > few {
		more = fmt.Sprintf(" and %d more", len(pids)-few)
	}
	return fmt.Sprintf("processes %s%s live %s", strings.Trim(fmt.Sprint(pids[:min(few, len(pids))]), "[]"), more, where)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "it was found"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// sameRecord tells whether b says anything that a does not, apart from when runtimes were last asked.
func sameRecord(a, b Record) bool {
	same := a.Boot == b.Boot && slices.Equal(a.Namespaces, b.Namespaces) && len(a.Runtimes) == len(b.Runtimes)
	return same && maps.EqualFunc(a.Entries, b.Entries, func(x, y Entry) bool {
		return x.First.Equal(y.First) && maps.EqualFunc(x.Lists, y.Lists, time.Time.Equal) && slices.Equal(x.Witness, y.Witness)
	})
}
