package container

import (
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Snapshot is what was known of all containers at one moment. It is never modified after it was published; whoever
// has one may keep it.
type Snapshot struct {
	At         time.Time      `json:"at"`
	Seq        uint64         `json:"seq"` // grows by one with each publication
	Containers []Container    `json:"containers"`
	Runtimes   []RuntimeState `json:"runtimes"`
	// Gone holds a tombstone for ten minutes after a container was removed: labels and last state, which logs, last
	// samples and the reaper need.
	Gone []Tombstone `json:"gone,omitempty"`

	byID    map[key]int
	byNetNS map[host.NetNS][]int
	byLink  map[int]int
}

type key struct {
	runtime Runtime
	id      ID
}

// newSnapshot indexes containers, which must not change afterwards.
func newSnapshot(at time.Time, seq uint64, containers []Container) *Snapshot {
	s := &Snapshot{
		At: at, Seq: seq, Containers: containers,
		byID: make(map[key]int, len(containers)), byNetNS: map[host.NetNS][]int{}, byLink: map[int]int{},
	}
	for i := range containers {
		c := &containers[i]
		if _, taken := s.byID[key{c.Runtime, c.ID}]; !taken {
			s.byID[key{c.Runtime, c.ID}] = i
		}
		if !c.NetNS.IsZero() {
			s.byNetNS[c.NetNS] = append(s.byNetNS[c.NetNS], i)
		}
		for _, l := range c.Links {
			if _, taken := s.byLink[l.Index]; !taken || c.Sandbox {
				s.byLink[l.Index] = i
			}
		}
	}
	return s
}

// RuntimeState is one runtime and whether it answers.
type RuntimeState struct {
	Name     Runtime   `json:"name"`
	Socket   string    `json:"socket"`
	Answered bool      `json:"answered"` // the last question was answered; its containers are as fresh as At
	Since    time.Time `json:"since"`    // when Answered last changed
	Asked    time.Time `json:"asked"`    // last complete List that was answered
	Error    string    `json:"error,omitempty"`
	Count    int       `json:"containers"`
}

// Tombstone is a container that its runtime no longer has.
type Tombstone struct {
	Container
	Removed time.Time `json:"removed"`
}

// Get finds a container by runtime and id. Where two containerd namespaces use the same id it gives the first by
// namespace.
func (s *Snapshot) Get(r Runtime, id ID) (*Container, bool) {
	i, ok := s.byID[key{r, id}]
	if !ok {
		return nil, false
	}
	return &s.Containers[i], true
}

// ByNetNS gives the containers that share a network namespace (a pod has several).
func (s *Snapshot) ByNetNS(ns host.NetNS) []*Container {
	var out []*Container
	for _, i := range s.byNetNS[ns] {
		out = append(out, &s.Containers[i])
	}
	return out
}

// ByLink gives the container whose network namespace holds the other end of the host's link index. For a pod it is
// the sandbox, or the first container when no sandbox is listed.
func (s *Snapshot) ByLink(index int) (*Container, bool) {
	i, ok := s.byLink[index]
	if !ok {
		return nil, false
	}
	return &s.Containers[i], true
}

// Answered tells whether runtime r answered last time it was asked. An unknown runtime is unanswered.
func (s *Snapshot) Answered(r Runtime) bool {
	for _, rt := range s.Runtimes {
		if rt.Name == r {
			return rt.Answered
		}
	}
	return false
}
