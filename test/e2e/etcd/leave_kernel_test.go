//go:build kernel

package etcd

import (
	"strings"
	"testing"
)

// A refused host gives nothing back, for nothing is its own; today it says that it has left.
func TestARefusedHostDoesNotSayThatItHasLeft(t *testing.T) {
	t.Parallel()
	s := begin(t, tunnelled, "web1", "spare")
	s.join("fairlead", s.Node("web1"))
	spare := s.Node("spare")
	spare.Called = "web1"
	s.must(spare.Start())
	spare.Member = false
	s.says(spare, "another living machine is registered as web1", 1)
	s.until(spare, "fairlead", "it answers", func(Network) bool { return true })
	if out, err := spare.Fairlead(t.Context(), "net", "leave"); err == nil || !strings.Contains(err.Error(), "another living machine") {
		t.Errorf("leave: %v %s", err, out)
	}
}
