//go:build kernel

package main

import (
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestKillNineAtEveryPlaceOfAddAndDelLeavesNothing(t *testing.T) {
	hosttest.Require(t, "ip", "nft", "nsenter", "conntrack", "bash")
	out, bad, err := soak(t.Context(), 0, 48)
	for _, line := range bad {
		t.Error(line)
	}
	if err != nil || out.FewestKills < 1 || out.Missed > 0 || out.Places < 30 {
		t.Errorf("%+v: %v", out, err)
	}
}
