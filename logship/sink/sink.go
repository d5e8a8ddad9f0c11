// Package sink is the contract between the log shipper and what it delivers to; the drivers are sub-packages and all
// run the one suite in sinktest.
//
// A sink owns its connection or file and nothing else: what has been delivered is remembered by the caller, who saves
// the positions of acknowledged records and the sink's Mark in one write. After a crash the sink gets that Mark back
// and can undo, or prove, what happened after it.
package sink

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
)

// Class says what an acknowledgement of a sink is worth.
type Class string

// The classes.
const (
	Acknowledged  Class = "acknowledged"    // the receiver says that it has the records: nothing is lost
	Stream        Class = "stream"          // the peer's kernel has taken the bytes; a reset may double the last window
	FireAndForget Class = "fire-and-forget" // the records left this host
)

// Origin is where a record comes from. It is never modified, so records share it and sinks may key caches by pointer.
type Origin struct {
	Host      string            `json:"host"`
	Runtime   string            `json:"runtime,omitempty"`
	ID        string            `json:"id,omitempty"` // container id
	Name      string            `json:"name,omitempty"`
	Image     string            `json:"image,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Addr      netip.Addr        `json:"addr,omitzero"`       // the container's first overlay address
	Namespace string            `json:"namespace,omitempty"` // Kubernetes namespace and pod
	Pod       string            `json:"pod,omitempty"`
	Path      string            `json:"path,omitempty"` // of a file; empty for a container's own output
}

// Record is one line on its way. Line is valid until Deliver returns.
type Record struct {
	Origin *Origin
	At     int64 // nanoseconds since 1970; when it was written, or read where the file does not tell
	Std    decode.Std
	Line   []byte
	Key    Key
	// Fields are what a shaping rule has parsed from the line, in the line's order; nil for nearly every record.
	Fields []Field
}

// Time gives At as a time in UTC.
func (r *Record) Time() time.Time { return time.Unix(0, r.At).UTC() }

// Receipt says what became of the records of one Deliver.
type Receipt struct {
	// Acked is how many, counted from the first, are the receiver's now. The caller never sends them again, not even
	// after a crash, and the sink never needs them again from the caller.
	Acked int
	// Unsure is how many of those that follow may have arrived although nobody said so. The caller sends them again
	// and counts them as possibly doubled.
	Unsure int
	// Resent is how many records, acknowledged by an earlier Deliver, the sink sent again on its own account because
	// a reset made that acknowledgement doubtful.
	Resent int
	// Mark is the sink's own note, saved in one write with the positions of the acknowledged records. It is kept from
	// the last receipt when it is empty.
	Mark string
	// Rejected are those of the acknowledged records that the receiver refused for good, in the order of their indices.
	// The caller keeps them elsewhere before it moves on.
	Rejected []Rejection
}

// Sink delivers records in order. The caller calls one method at a time; a sink needs no lock for them.
//
// Back-pressure is Deliver not returning: the caller has a bounded number of records in memory, reads no further, and
// the lines wait in their files.
type Sink interface {
	// Class is what an acknowledgement is worth. It never changes.
	Class() Class
	// Pace is the least time from one Deliver to the next under load that suits the driver: an fsync or a request for
	// each line would be waste. A line that comes after a quiet time does not wait.
	Pace() time.Duration
	// Resume is called once, before the first Deliver, with the last saved Mark ("" on the first start ever). It
	// undoes whatever the former agent did after that mark where the receiver allows that, and gives the mark that
	// stands now, which is saved before anything is delivered. It is called again, with the same mark, after an error.
	Resume(ctx context.Context, mark string) (string, error)
	// Deliver blocks until the records are the receiver's, until it fails, or until ctx ends. The receipt counts also
	// when there is an error; the error is the reason why it covers less than all of them. The caller repeats the rest
	// after a back-off.
	// written, which may be nil, is for a Confirmer: it is called at most once, when all records are written and none
	// is acknowledged yet, with the proof to look for.
	Deliver(ctx context.Context, records []Record, written func(proof string)) (Receipt, error)
	// Close gives up connections and files. It may be called twice.
	Close() error
}

// Confirmer is a Sink that can find out, after the agent was killed between writing a batch and learning that it was
// acknowledged, whether the batch arrived. It closes the only gap in which a kill doubles lines.
type Confirmer interface {
	// Confirm tells whether everything written under proof is the receiver's. It is called before Resume. Doubt is no.
	Confirm(ctx context.Context, proof string) bool
}
