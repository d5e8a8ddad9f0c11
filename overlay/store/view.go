package store

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// view is what a store says at one revision: all records below the prefix. Records that we do not understand are there
// with their error, so that nobody writes over them.
type view struct {
	cluster string // etcd's cluster id
	rev     int64
	dirs    map[string]map[string]item // by directory, such as "nodes/", and the rest of the key
}

type item struct {
	rec          any
	err          error // why rec is nil
	value        []byte
	created, mod int64
}

func newView(cluster string, rev int64) *view {
	return &view{cluster: cluster, rev: rev, dirs: map[string]map[string]item{}}
}

// split gives the directory of a key, empty for one at the top, and the rest.
func split(key string) (dir, name string) {
	i := strings.IndexByte(key, '/') + 1
	return key[:i], key[i:]
}

// put enters a record and gives the reason why it is passed over, if it is.
func (v *view) put(key string, value []byte, created, mod int64) error {
	rec, err := decode(key, value)
	dir, name := split(key)
	if v.dirs[dir] == nil {
		v.dirs[dir] = map[string]item{}
	}
	v.dirs[dir][name] = item{rec, err, value, created, mod}
	v.rev = max(v.rev, mod)
	return err
}

func (v *view) remove(key string, rev int64) {
	dir, name := split(key)
	delete(v.dirs[dir], name)
	v.rev = max(v.rev, rev)
}

func (v *view) item(key string) item {
	dir, name := split(key)
	return v.dirs[dir][name]
}

// mod is the revision of a key's last change; 0 when it is not there.
func (v *view) mod(key string) int64 { return v.item(key).mod }

// same is the condition that key is as v has it.
func (v *view) same(key string) Cond {
	i := v.item(key)
	return Cond{Key: key, Mod: i.mod, Value: i.value}
}

// get gives a record; false when there is none, or one that is not understood.
func get[R any](v *view, key string) (R, bool) {
	r, ok := v.item(key).rec.(R)
	return r, ok
}

// under gives the records below a directory, by the rest of their keys, in no order.
func under[R any](v *view, dir string) iter.Seq2[string, R] {
	return func(yield func(string, R) bool) {
		for name, i := range v.dirs[dir] {
			if r, ok := i.rec.(R); ok && !yield(name, r) {
				return
			}
		}
	}
}

// networks gives those that are understood, by name.
func (v *view) networks() (list []Network) {
	for _, name := range slices.Sorted(maps.Keys(v.dirs[networksDir])) {
		if n, ok := get[Network](v, networksDir+name); ok {
			list = append(list, n)
		}
	}
	return list
}

// network gives a network and the revision that made it.
func (v *view) network(name string) (n Network, created int64, ok bool) {
	n, ok = get[Network](v, networksDir+name)
	return n, v.item(networksDir + name).created, ok
}

// grace tells whether no new lease is given now.
func (v *view) grace() bool { return v.mod(graceKey) != 0 }

// lease gives the record of a block as a lease. One that is older than its network is of an earlier network of that
// name, whose removal was cut short; it counts for nothing.
func (v *view) lease(key string) (Lease, bool) {
	r, ok := get[blockRecord](v, key)
	network, b, _ := parseBlockKey(key)
	if _, created, there := v.network(network); !ok || !there || created > v.mod(key) {
		return Lease{}, false
	}
	return Lease{Network: network, Block: b, Holder: r.Holder, By: r.By, Fence: Fence{r.Epoch, v.mod(key)}, For: r.For, Was: r.Was, After: r.After}, true
}
