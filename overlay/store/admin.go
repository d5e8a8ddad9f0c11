package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// AliveError is returned for a node that is to be forgotten and is alive.
type AliveError struct{ Node Identity }

func (e *AliveError) Error() string {
	return fmt.Sprintf("node %s is alive; run `fairlead net leave` there, or stop its agent first", e.Node)
}

// UnknownNodeError names the nodes that there are.
type UnknownNodeError struct {
	Name  string
	Known []string
}

func (e *UnknownNodeError) Error() string {
	return fmt.Sprintf("no node %q in the store; there are %q", e.Name, e.Known)
}

// errExists is returned for a network that is to be made and is there.
var errExists = errors.New("there is a network of this name already")

// forget decides how a dead node's blocks are given back: a write at a time, nil when nothing is left.
func forget(v *view, known map[string]Lease, name string) (*Txn, error) {
	key := liveDir + name
	if v.mod(key) != 0 {
		who, _ := get[Identity](v, key)
		who.Name = name
		return nil, &AliveError{who}
	}
	return release(v, known, name, "", []Cond{sameEpoch(v), {Key: key}}), nil
}

// create decides how a network is made.
func create(v *view, n Network, check func([]Network) error) (*Txn, error) {
	if v.mod(networksDir+n.Name) != 0 {
		return nil, errExists
	}
	if err := check(v.networks()); err != nil {
		return nil, err
	}
	return &Txn{
		Why:  "make network " + n.Name,
		If:   []Cond{sameEpoch(v), {Key: networksDir, Since: v.rev}, {Key: networksDir + n.Name}},
		Then: []Write{{Key: networksDir + n.Name, Value: encode(n)}},
	}, nil
}

// remove decides how a network is taken away, and then, some at a time, what is left of its blocks.
func remove(v *view, name string) (*Txn, error) {
	var users []string
	for rest := range v.dirs[usesDir] {
		if node, ok := strings.CutPrefix(rest, name+"/"); ok {
			users = append(users, node)
		}
	}
	if slices.Sort(users); len(users) > 0 {
		return nil, fmt.Errorf("containers are on it, on the hosts %s; a host that is gone for good is forgotten by `fairlead net forget-node`", strings.Join(users, ", "))
	}
	t := &Txn{Why: "remove network " + name, If: []Cond{{Key: usesDir + name + "/", None: true}, v.same(networksDir + name)}}
	if v.mod(networksDir+name) != 0 {
		t.Then = append(t.Then, Write{Key: networksDir + name})
	}
	for rest := range v.dirs[blocksDir] {
		if strings.HasPrefix(rest, name+"/") && len(t.Then) < releaseAtOnce {
			t.Then = append(t.Then, Write{Key: blocksDir + rest})
		}
	}
	if len(t.Then) == 0 {
		return nil, nil
	}
	return t, nil
}

// CreateNetwork makes a network for all hosts; see Shared.
func (e *Etcd) CreateNetwork(ctx context.Context, n Network, check func(there []Network) error) error {
	return e.change(ctx, true, func(v *view) (*Txn, error) { return create(v, n, check) })
}

// RemoveNetwork takes a network away from all hosts; see Shared.
func (e *Etcd) RemoveNetwork(ctx context.Context, name string) error {
	return e.change(ctx, false, func(v *view) (*Txn, error) { return remove(v, name) })
}

// ForgetNode gives a dead node's blocks back; see Shared.
func (e *Etcd) ForgetNode(ctx context.Context, name string) error {
	e.mu.Lock()
	known := e.known
	e.mu.Unlock()
	first := true
	return e.change(ctx, false, func(v *view) (*Txn, error) {
		if first && v.mod(nodesDir+name) == 0 {
			var there []string
			for node := range under[Identity](v, nodesDir) {
				there = append(there, node)
			}
			remembered := false
			for _, l := range known {
				remembered = remembered || l.Holder == name
			}
			if slices.Sort(there); !remembered {
				return nil, &UnknownNodeError{name, there}
			}
		}
		first = false
		return forget(v, known, name)
	})
}

// changeAttempts bounds how often a change meets that somebody else was quicker.
const changeAttempts = 200

// change reads, decides and writes: once, or until there is nothing left to write. It begins anew when somebody else was
// quicker.
func (e *Etcd) change(ctx context.Context, once bool, decide func(*view) (*Txn, error)) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	for range changeAttempts {
		v, err := e.read(ctx, c, func(string, int64, error) {})
		if err != nil {
			return err
		}
		t, err := decide(v)
		if t == nil || err != nil {
			return err
		}
		r, err := e.commit(ctx, c, t, clientv3.NoLease)
		if err != nil {
			return err
		}
		if r.Succeeded && once {
			return nil
		}
	}
	return errors.New("others change the store all the time; try again")
}

// leave is asked for by one or more.
type leave struct {
	done chan struct{} // closed when it is done, or refused
	err  error         // valid after done
}

// told takes what came of a step. Only the first answer counts.
func (l *leave) told(st step) {
	select {
	case <-l.done:
		return
	default:
	}
	if st.refused {
		l.err = errors.New(st.problem)
	}
	close(l.done)
}

// Leave gives this host's blocks back; see Shared.
func (e *Etcd) Leave(ctx context.Context) error {
	e.mu.Lock()
	if e.leaving == nil {
		e.leaving = &leave{done: make(chan struct{})}
	}
	l := e.leaving
	e.mu.Unlock()
	poke(e.changed)
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	default:
	}
	if e.leaving == l {
		e.leaving = nil
	}
	poke(e.changed)
	return fmt.Errorf("etcd did not take it: %w; this host has not left", ctx.Err())
}
