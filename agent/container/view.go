package container

import (
	"maps"
	"reflect"
	"slices"
	"time"
)

// view is what one runtime said last. It is guarded by the Inventory's lock.
type view struct {
	state      RuntimeState
	containers map[Handle]entry
}

// entry is a container and how often the runtime told us about it: what the kernel said of an older one is asked again.
type entry struct {
	Container
	told uint64
}

func newView(name Runtime, socket string) *view {
	return &view{state: RuntimeState{Name: name, Socket: socket}, containers: map[Handle]entry{}}
}

// list replaces everything by what a complete List gave, and gives the containers that are no longer there.
func (v *view) list(now time.Time, have []Container) []Tombstone {
	next := make(map[Handle]entry, len(have))
	for _, c := range have {
		old := v.containers[c.handle()]
		next[c.handle()] = entry{carry(old.Container, c), old.told + 1}
	}
	var gone []Tombstone
	for h, e := range v.containers {
		if _, ok := next[h]; !ok {
			gone = append(gone, Tombstone{e.Container, now})
		}
	}
	v.containers = next
	v.state.Asked = now
	return gone
}

// put takes one container as the runtime has it now and tells whether anything changed.
func (v *view) put(c Container) bool {
	old, had := v.containers[c.handle()]
	c = carry(old.Container, c)
	if had && reflect.DeepEqual(old.Container, c) {
		return false
	}
	v.containers[c.handle()] = entry{c, old.told + 1}
	return true
}

// remove takes a container away; ok is false when it was not there.
func (v *view) remove(h Handle, now time.Time) (t Tombstone, ok bool) {
	e, ok := v.containers[h]
	delete(v.containers, h)
	return Tombstone{e.Container, now}, ok
}

// answer notes whether the runtime answered and tells whether that changed.
func (v *view) answer(now time.Time, err error) bool {
	flipped := v.state.Since.IsZero() || v.state.Answered != (err == nil)
	if flipped {
		v.state.Since = now
	}
	v.state.Answered, v.state.Error = err == nil, ""
	if err != nil {
		v.state.Error = err.Error()
	}
	return flipped
}

// sorted gives the entries in the order of their handles.
func (v *view) sorted() []entry {
	out := make([]entry, 0, len(v.containers))
	for _, h := range slices.Sorted(maps.Keys(v.containers)) {
		out = append(out, v.containers[h])
	}
	return out
}

// carry keeps in c what its runtime forgets: containerd has no memory of a container's last task, so one that ran and
// has no task now has exited, and its log lies where it did.
func carry(old, c Container) Container {
	if c.Log == (Log{}) {
		c.Log = old.Log
	}
	if c.PID != 0 && c.PID != old.PID {
		return c // another run
	}
	if c.State == Created && c.PID == 0 && (old.Alive() || old.State == Exited) {
		c.State = Exited
	}
	if c.Started.IsZero() {
		c.Started = old.Started
	}
	if c.State == Exited && c.Finished.IsZero() {
		c.Finished, c.ExitCode = old.Finished, old.ExitCode
	}
	return c
}
