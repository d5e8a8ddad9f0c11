package store

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	modelSeed      = flag.Uint64("model.seed", 0, "run this one history of the model test, and tell it")
	modelHistories = flag.Int("model.histories", 0, "run so many; 0: for two seconds")
)

// modelStore is etcd as the protocol sees it: keys with revisions, transactions, a log of changes that watchers read at
// their own pace, snapshots that are restored.
type modelStore struct {
	cluster string
	rev     int64
	keys    map[string]modelKey
	log     []modelEvent
}

type modelKey struct {
	value        []byte
	created, mod int64
	session      int // of a key that ends with one; -1: with the grace period
}

type modelEvent struct {
	key     string
	value   []byte // nil: deleted
	created int64
	rev     int64
}

func (s *modelStore) holds(c Cond) bool {
	if !c.None && c.Since == 0 {
		return s.keys[c.Key].mod == c.Mod && (c.Value == nil || bytes.Equal(s.keys[c.Key].value, c.Value))
	}
	for key, k := range s.keys {
		if strings.HasPrefix(key, c.Key) && (c.None || k.mod > c.Since) {
			return false
		}
	}
	return true
}

func (s *modelStore) commit(t *Txn, session int) (int64, bool) {
	for _, c := range t.If {
		if !s.holds(c) {
			return s.rev, false
		}
	}
	s.rev++
	for _, w := range t.Then {
		s.write(w, session)
	}
	return s.rev, true
}

func (s *modelStore) write(w Write, session int) {
	if w.Value == nil {
		if _, there := s.keys[w.Key]; there {
			delete(s.keys, w.Key)
			s.log = append(s.log, modelEvent{key: w.Key, rev: s.rev})
		}
		return
	}
	k := s.keys[w.Key]
	if k.mod == 0 {
		k.created = s.rev
	}
	k.value, k.mod, k.session = w.Value, s.rev, map[Life]int{Forever: 0, InSession: session, InGrace: -1}[w.Life]
	s.keys[w.Key] = k
	s.log = append(s.log, modelEvent{w.Key, w.Value, k.created, s.rev})
}

// expire deletes the keys of a session.
func (s *modelStore) expire(session int) {
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if s.keys[key].session == session {
			s.rev++
			s.write(Write{Key: key}, 0)
		}
	}
}

func (s *modelStore) copy() *modelStore {
	c := *s
	c.keys, c.log = maps.Clone(s.keys), slices.Clone(s.log)
	return &c
}

func (s *modelStore) read() *view {
	v := newView(s.cluster, s.rev)
	for key, k := range s.keys {
		_ = v.put(key, k.value, k.created, k.mod)
	}
	return v
}

// modelNode is a machine with an agent.
type modelNode struct {
	machine int
	n       *node
	v       *view // nil while it has no connection
	session int   // with the store; 0: none
	cut     bool  // from the store
	down    bool
	disk    []byte // its memory, as last written
	awaits  int64
	refused bool
	problem string
	uses    map[netip.Addr]bool // containers with fixed addresses; they outlive the agent
}

type model struct {
	*rand.Rand
	t        *testing.T
	seed     uint64
	calm     bool // no snapshot, no image, nobody is forgotten: then there are never two who believe to hold something
	store    *modelStore
	machines []*modelNode
	late     []func() // writes that are on their way
	saved    []*modelStore
	sessions int
	boots    int
	// What allows a moment with two who believe to hold a block: that one of them could not yet know.
	forgotten, cloned           bool
	restores                    int             // of snapshots
	taken                       map[string]bool // addresses that were taken from a silent host
	told                        []string
	doubles                     int
	claims, refusals, takeovers int
}

func (m *model) tell(format string, args ...any) {
	m.told = append(m.told, fmt.Sprintf(format, args...))
}

func (m *model) start(machine *modelNode, name string, reboot bool) {
	mem := memory{ID: fmt.Sprintf("id%d", machine.machine)}
	if machine.disk != nil {
		if err := json.Unmarshal(machine.disk, &mem); err != nil {
			m.t.Fatal(err)
		}
	}
	self := Identity{Name: name, ID: mem.ID, Machine: "m", Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(machine.machine + 1)})}
	if machine.n != nil && !reboot {
		self.Boot = machine.n.self.Boot
	} else {
		m.boots++
		self.Boot = fmt.Sprintf("boot%d", m.boots)
	}
	machine.n = &node{self: self, mem: mem, fresh: func() string { return fmt.Sprint(m.Uint32()) }, wants: Wants{Networks: []Network{testNetwork()}}}
	machine.v, machine.session, machine.down, machine.refused = nil, 0, false, false
	if reboot || machine.uses == nil {
		machine.uses = map[netip.Addr]bool{}
	}
}

func testNetwork() Network {
	return Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42, Block: 20, Fixed: netip.MustParsePrefix("10.42.240.0/20"), Spec: json.RawMessage(`{}`)}
}

// want tells the node which fixed addresses it needs: those that containers have, and those that it claims.
func (x *modelNode) want() {
	x.n.wants.Fixed = slices.SortedFunc(maps.Keys(x.uses), netip.Addr.Compare)
	for _, c := range x.n.claims {
		x.n.wants.Fixed = append(x.n.wants.Fixed, c.Addr)
	}
	if x.n.wants.Fixed == nil {
		x.n.wants.Fixed = []netip.Addr{}
	}
}

// container starts one with a fixed address, or ends it.
func (m *model) container(x *modelNode) {
	c := Claim{Network: "blue", Addr: netip.AddrFrom4([4]byte{10, 42, 240, byte(m.IntN(3))}), For: "c", TakeOver: m.seed%2 == 0 && m.IntN(2) == 0}
	switch {
	case x.down || slices.Contains(x.n.claims, c):
	case x.uses[c.Addr]:
		delete(x.uses, c.Addr)
		x.want()
	default:
		x.n.claims = append(x.n.claims, c)
		x.want()
		if x.n.holds(c.key()) && !x.refused { // as Claim does
			x.answer(map[Claim]error{c: nil})
		}
	}
}

func (x *modelNode) answer(answers map[Claim]error) {
	for c, err := range answers {
		x.n.claims = slices.DeleteFunc(x.n.claims, func(d Claim) bool { return c == d })
		if err == nil {
			x.uses[c.Addr] = true
		}
	}
	x.want()
}

// sync is a paged read, and a new watch.
func (m *model) sync(x *modelNode) {
	if x.session == 0 {
		m.sessions++
		x.session = m.sessions
		x.n.session = 0
	}
	x.v, x.awaits = m.store.read(), 0
	m.learn(x)
}

func (m *model) learn(x *modelNode) {
	before := maps.Clone(x.n.mem.Leases)
	lineage, epoch := x.n.mem.Lineage, x.n.mem.Epoch
	if x.n.mem.restored(x.v) == "" {
		x.n.mem.learn(x.v, x.n.self.Name)
		x.n.settle(x.v)
		x.disk, _ = json.Marshal(x.n.mem)
	}
	if x.n.mem.Lineage == lineage && x.n.mem.Epoch < epoch {
		m.fail("%s went back from epoch %d to %d", x.n.self.Name, epoch, x.n.mem.Epoch)
	}
	for key, l := range x.n.mem.Leases {
		if x.n.mem.Lineage == lineage && l.Fence.Compare(before[key].Fence) < 0 {
			m.fail("%s has seen %v and believes %v", x.n.self.Name, before[key], l)
		}
	}
}

func (m *model) deliver(x *modelNode, most int) {
	for _, e := range m.store.log {
		if e.rev <= x.v.rev || most == 0 {
			continue
		}
		most--
		if e.value == nil {
			x.v.remove(e.key, e.rev)
		} else {
			_ = x.v.put(e.key, e.value, e.created, e.rev)
		}
		// etcd gives the changes of one transaction together.
		if i := slices.IndexFunc(m.store.log, func(f modelEvent) bool { return f.rev == e.rev && f.key != e.key }); i >= 0 {
			for _, f := range m.store.log[i:] {
				if f.rev == e.rev && f.value == nil {
					x.v.remove(f.key, f.rev)
				} else if f.rev == e.rev {
					_ = x.v.put(f.key, f.value, f.created, f.rev)
				}
			}
		}
	}
	m.learn(x)
}

// act lets a node take its next step; how tells what becomes of its write.
func (m *model) act(x *modelNode, how int) {
	if x.v.rev < x.awaits {
		return
	}
	st := x.n.next(x.v)
	x.refused, x.problem = st.refused, st.problem
	if len(st.answers) > 0 {
		x.answer(st.answers)
		for _, err := range st.answers {
			m.claims++
			if err != nil {
				m.refusals++
			}
		}
	}
	if st.txn == nil {
		return
	}
	if len(st.gives) > 0 {
		x.n.giving(st.gives)
		x.disk, _ = json.Marshal(x.n.mem)
	}
	registers := strings.HasPrefix(st.txn.Why, "register")
	session, own := x.session, x.n
	do := func() bool {
		before, knew := m.store.read(), own.mem.Leases[st.txn.Then[0].Key].Holder
		rev, ok := m.store.commit(st.txn, session)
		m.tell("%s(machine %d, %s) %t at %d: %s", own.self.Name, x.machine, own.self.Boot, ok, rev, st.txn)
		if ok && registers {
			m.registered(x)
		}
		if l, _ := before.lease(st.txn.Then[0].Key); ok && strings.HasPrefix(st.txn.Why, "claim") && l.Holder != "" && l.Holder != own.self.Name {
			if before.mod(liveDir+l.Holder) != 0 && knew == l.Holder { // else the store was restored, and we know better
				m.fail("%s took %s of %s, which lives", own.self.Name, l.Block, l.Holder)
			}
			m.taken[st.txn.Then[0].Key] = true
			m.takeovers++
		}
		if ok && x.n == own {
			x.awaits = rev
			if registers && how == 0 {
				x.n.session = rev
			}
		}
		return ok
	}
	switch how {
	case 0:
		if !do() {
			m.sync(x) // as after a while without news
		}
	case 1: // the answer is lost, and with it the connection
		do()
		x.v = nil
	default: // it is slow: the node gives up before it arrives
		m.late = append(m.late, func() { do() })
		x.v = nil
	}
}

// registered notes that machines of the same name that believe to be it do not know of this one yet.
func (m *model) registered(x *modelNode) {
	for _, y := range m.machines {
		if y != x && y.n.self.Name == x.n.self.Name {
			m.cloned = true
		}
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("go test -run Model -model.seed=%d\n%s\n%s", m.seed, strings.Join(m.told[max(0, len(m.told)-60):], "\n"), fmt.Sprintf(format, args...))
}

// owners gives who believes to hold a block.
func (m *model) owners() map[string][]*modelNode {
	out := map[string][]*modelNode{}
	for _, x := range m.machines {
		if x.down {
			continue
		}
		for _, b := range x.n.clusterOf(func(string) bool { return true }, step{refused: x.refused}).Self.Blocks {
			out[blockKey("blue", b)] = append(out[blockKey("blue", b)], x)
		}
	}
	return out
}

func (m *model) check() {
	for key, xs := range m.owners() {
		if len(xs) < 2 {
			continue
		}
		m.doubles++
		var say []string
		fences, knowing := map[Fence]bool{}, 0
		for _, x := range xs {
			f := x.n.mem.Leases[key].Fence
			if fences[f] && f != (Fence{}) && !m.cloned && m.restores == 0 { // a restored store gives its revisions anew
				m.fail("%s: two hold it by the fence %s", key, f)
			}
			fences[f] = true
			// When a store was restored twice, two may remember one block from two times that were lost, and before both have
			// written what they hold nothing tells them apart. In the end (settle) it is one.
			if x.v != nil && (m.restores < 2 || x.n.assert(x.v) == nil) && x.v.rev == m.store.rev && x.v.cluster == m.store.cluster && x.n.mem.restored(x.v) == "" && !x.refused && x.n.isRegistered(x.v) {
				knowing++
			}
			say = append(say, fmt.Sprintf("%s(machine %d, by %s, cut %t, fence %s)", x.n.self.Name, x.machine, x.n.mem.Leases[key].By, x.cut, f))
		}
		if knowing > 1 || m.restores == 0 && !m.forgotten && !m.cloned && !m.taken[key] {
			m.fail("%s has two owners: %s", key, strings.Join(say, ", "))
		}
	}
}

// happen does one thing at random.
func (m *model) happen() {
	x := m.machines[m.IntN(len(m.machines))]
	switch m.IntN(40) {
	case 0:
		x.cut = !x.cut
		x.v = nil
		m.tell("machine %d cut: %t", x.machine, x.cut)
	case 1: // the session of somebody who is not there runs out
		if x.v == nil && x.session != 0 {
			m.tell("session of machine %d ends", x.machine)
			m.store.expire(x.session)
			x.session, x.n.session = 0, 0
		}
	case 2:
		m.store.expire(-1)
	case 3:
		x.down, x.v = true, nil
		m.tell("machine %d is down", x.machine)
	case 4, 5:
		if x.down {
			reboot := m.IntN(3) == 0
			if m.IntN(8) == 0 && !m.calm {
				x.disk, reboot = nil, true // re-imaged
				m.cloned = m.cloned || m.store.keys[liveDir+x.n.self.Name].mod != 0
			}
			session := x.session
			m.start(x, x.n.self.Name, reboot)
			m.tell("machine %d is up, reboot %t", x.machine, reboot)
			if session != 0 && m.IntN(2) == 0 {
				m.late = append(m.late, func() { m.store.expire(session) })
			}
		}
	case 6:
		if m.IntN(3) == 0 && !m.calm {
			m.saved = append(m.saved, m.store.copy())
		}
	case 7:
		if len(m.saved) > 0 && m.IntN(4) == 0 {
			m.restore(m.saved[m.IntN(len(m.saved))].copy())
		}
	case 8:
		if m.IntN(3) == 0 && !m.calm {
			m.forget(x)
		}
	case 9:
		if len(m.machines) < 6 && m.IntN(6) == 0 && !m.calm { // an image of x, with all that is on its disk
			y := &modelNode{machine: len(m.machines), disk: bytes.Clone(x.disk)}
			m.cloned = true
			m.start(y, x.n.self.Name, true)
			m.machines = append(m.machines, y)
			m.tell("machine %d is an image of %d", y.machine, x.machine)
		}
	case 10, 11:
		if len(m.late) > 0 {
			i := m.IntN(len(m.late))
			late := m.late[i]
			m.late = slices.Delete(m.late, i, i+1)
			late()
		}
	case 12:
		if !x.down {
			x.want() // it has recovered
			x.n.wants.Blocks = map[string]int{"blue": 1 + m.IntN(3)}
		}
	case 13, 14, 15:
		m.container(x)
	default:
		m.go1(x)
	}
}

func (m *model) go1(x *modelNode) {
	switch {
	case x.down || x.cut:
	case x.v == nil:
		m.sync(x)
	case m.IntN(2) == 0:
		m.deliver(x, 1+m.IntN(4))
	default:
		how := 0
		if m.IntN(6) == 0 {
			how = 1 + m.IntN(2)
		}
		m.act(x, how)
	}
}

// restore brings a snapshot back: every connection breaks, and what was on its way is lost with them.
func (m *model) restore(old *modelStore) {
	m.tell("restore revision %d over %d", old.rev, m.store.rev)
	m.restores++
	m.store = old
	if m.IntN(2) == 0 {
		m.store.cluster += "'"
	}
	m.late = nil
	for _, x := range m.machines {
		x.v = nil
	}
}

func (m *model) forget(x *modelNode) {
	v := m.store.read()
	for range 10 {
		t, err := forget(v, nil, x.n.self.Name)
		if err != nil || t == nil {
			return
		}
		if _, ok := m.store.commit(t, 0); ok {
			m.tell("forget %s", x.n.self.Name)
			m.forgotten = true
		}
		v = m.store.read()
	}
}

// settle lets all be well again, and looks whether everybody agrees.
func (m *model) settle() {
	for _, late := range m.late {
		late()
	}
	m.late = nil
	m.tell("all is well again")
	var up []*modelNode
	for _, x := range m.machines {
		x.cut = false
		if x.down {
			m.store.expire(x.session)
		} else {
			up = append(up, x)
			x.want()
		}
	}
	for session := range m.sessions + 1 { // of connections that nobody has any more
		if !slices.ContainsFunc(up, func(x *modelNode) bool { return x.session == session }) {
			m.store.expire(session)
		}
	}
	m.store.expire(-1)
	for round := range 400 {
		for _, x := range up {
			if x.v == nil {
				m.sync(x)
			}
			m.deliver(x, -1)
			m.act(x, 0)
		}
		m.check()
		if round%50 == 49 {
			m.store.expire(-1)
		}
	}
	for key, xs := range m.owners() {
		var names []string
		for _, x := range xs {
			names = append(names, x.n.self.Name)
		}
		l, _ := m.store.read().lease(key)
		if len(xs) > 1 || l.Holder != xs[0].n.self.Name || l.By != xs[0].n.self.by() {
			m.fail("at the end %s is held by %v, and the store says %+v", key, names, l)
		}
		for _, x := range up {
			if known := x.n.mem.Leases[key]; known.Fence != l.Fence {
				m.fail("at the end %s believes %+v, and the store says %+v", x.n.self.Name, known, l)
			}
		}
	}
	for _, x := range up {
		if st := x.n.next(x.v); st.txn != nil {
			m.fail("%s (machine %d) does not come to rest: %s", x.n.self.Name, x.machine, st.txn)
		} else if len(x.n.claims) > 0 && !st.refused {
			m.fail("%s (machine %d) did not answer %v", x.n.self.Name, x.machine, x.n.claims)
		} else if !st.refused && st.problem == "" && x.n.held("blue", testNetwork().CIDR, testNetwork().Block) == 0 {
			m.fail("at the end %s holds nothing", x.n.self.Name)
		}
	}
}

func history(t *testing.T, seed uint64) (m *model) {
	m = &model{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, seed: seed, calm: seed%3 == 0, taken: map[string]bool{}, store: &modelStore{cluster: "c", rev: 1, keys: map[string]modelKey{}}}
	for i := range 4 {
		x := &modelNode{machine: i}
		m.machines = append(m.machines, x)
		m.start(x, fmt.Sprintf("web%d", i), true)
	}
	for range 400 {
		m.happen()
		m.check()
	}
	m.settle()
	return m
}

func TestModelOfLeasesHasNeverTwoOwnersWhoKnowTheStore(t *testing.T) {
	t.Parallel()
	if *modelSeed != 0 {
		m := history(t, *modelSeed)
		t.Log(strings.Join(m.told, "\n"))
		return
	}
	seed := rand.Uint64()
	restored, doubles, n, claims, refusals, takeovers := 0, 0, 0, 0, 0, 0
	for began := time.Now(); *modelHistories == 0 && (n == 0 || time.Since(began) < 2*time.Second) || n < *modelHistories; n++ {
		m := history(t, seed+uint64(n))
		doubles, claims, refusals, takeovers = doubles+m.doubles, claims+m.claims, refusals+m.refusals, takeovers+m.takeovers
		if m.restores > 0 {
			restored++
		}
	}
	t.Logf("%d histories from seed %d, %d with a restored snapshot; %d moments in which one who could not know held what another had been given; %d claims of fixed addresses answered, %d refused, %d taken from silent hosts", n, seed, restored, doubles, claims, refusals, takeovers)
}
