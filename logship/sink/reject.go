package sink

import (
	"fmt"
	"time"
)

// Rejection is one record that the receiver will never take: repeating it is of no use.
type Rejection struct {
	Index  int // among the records of the Deliver
	Reason string
}

// Later is the error of a receiver that asks for patience (429 or 503 with Retry-After): the caller does not come back
// before After has passed.
type Later struct {
	After time.Duration
	Err   error
}

func (l *Later) Error() string { return fmt.Sprintf("%v (asks for %s of patience)", l.Err, l.After) }

func (l *Later) Unwrap() error { return l.Err }

// Key tells a record from all others, also when it is sent again by another run: receivers that know keys store it
// once. It is zero where the file gives no time for the line, because then a truncated file could repeat a key.
type Key struct {
	File uint64
	Off  int64
}
