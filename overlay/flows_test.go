package overlay

import (
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestABatchUnderWayIsStillLeaving(t *testing.T) {
	t.Parallel()
	a, b := plan.Attachment{Network: "a"}, plan.Attachment{Network: "b"}
	var l leaving
	l.add(a)
	batch := l.all()
	l.add(b) // detached while the batch is under way
	if got := l.all(); len(got) != 2 || got[0].Network != "a" {
		t.Fatalf("while a batch is under way: %v", got)
	}
	l.done(len(batch))
	if got := l.all(); len(got) != 1 || got[0].Network != "b" {
		t.Fatalf("after it: %v", got)
	}
}
