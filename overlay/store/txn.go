package store

import (
	"fmt"
	"strings"
)

// Txn is one write with its conditions, as data: decisions make it, a store carries it out as a whole or not at all.
// Keys are below the prefix.
type Txn struct {
	Why  string // for the log
	If   []Cond
	Then []Write
}

// Cond is true while Key's last change is of revision Mod (0: there is no such key) and, with Value, its value is that: a
// store that was restored may reach the same revision with something else. With Since it is true while no key that
// begins with Key has changed after revision Since; with None, while there is no key that begins with Key.
type Cond struct {
	Key   string
	Mod   int64
	Value []byte
	Since int64
	None  bool
}

// Write puts Value; nil deletes Key.
type Write struct {
	Key   string
	Value []byte
	Life  Life
}

// Life is how long a key lives.
type Life int

// The lives of keys.
const (
	Forever   Life = iota
	InSession      // until the node's session ends
	InGrace        // for one grace period
)

func (t Txn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: if", t.Why)
	for _, c := range t.If {
		switch {
		case c.None:
			fmt.Fprintf(&b, " none(%s)", c.Key)
		case c.Since > 0:
			fmt.Fprintf(&b, " unchanged(%s,%d)", c.Key, c.Since)
		default:
			fmt.Fprintf(&b, " %s@%d", c.Key, c.Mod)
		}
	}
	b.WriteString(" then")
	for _, w := range t.Then {
		fmt.Fprintf(&b, " %s=%s", w.Key, w.Value)
	}
	return b.String()
}
