package reap

// Decision is what becomes of a resource.
type Decision string

// The decisions. Only Sweep lets `clean` act.
const (
	Keep   Decision = "keep"
	Report Decision = "report"
	Sweep  Decision = "sweep"
)

// Why is the ground of a decision, for programs; Reason says it for people.
type Why string

// The grounds.
const (
	Owned      Why = "owned"      // a runtime lists its container
	Alive      Why = "alive"      // processes live in it
	Protected  Why = "protected"  // its container had the label fairlead.protect
	Unknown    Why = "unknown"    // nothing shows that a container ever had it
	Unanswered Why = "unanswered" // a runtime that may own it does not answer
	Busy       Why = "busy"       // a part still works on what its container left
	Waiting    Why = "waiting"    // ownerless, but not yet seen so twice, a grace time apart
	Unproven   Why = "unproven"   // ownerless by all that is known, which is not enough to remove it
	Orphan     Why = "orphan"     // its container is gone
)

// Verdict is what Plan says of one resource.
type Verdict struct {
	Ref      string   `json:"ref"`
	Resource Resource `json:"resource"`
	Owner    string   `json:"owner,omitempty"` // the container it belongs or belonged to, as far as known
	Decision Decision `json:"decision"`
	Why      Why      `json:"why"`
	Reason   string   `json:"reason"` // one sentence
	Evidence []string `json:"evidence,omitempty"`
	Undo     bool     `json:"undo,omitempty"` // a sweep of it can be undone
}

// Quiet tells whether the verdict is of no interest to somebody who looks for orphans: the resource has an owner, or
// never had one.
func (v *Verdict) Quiet() bool {
	return v.Why == Owned || v.Why == Unknown || v.Why == Alive && v.Owner == "" && !v.Resource.Adrift
}
