package cgroup

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPagesOfEachNodeAreRead(t *testing.T) {
	t.Parallel()
	var s Stats
	if err := parseNUMAV1([]byte("total=30 N0=20 N1=10\nfile=12 N0=12 N1=0\nanon=18 N0=8 N1=10\nunevictable=0 N0=0 N1=0\nhierarchical_total=31 N0=21 N1=10\nhierarchical_file=13 N0=13 N1=0\n"), &s); err != nil {
		t.Fatal(err)
	}
	want := []NodePages{
		{"file", false, 0, 12}, {"file", false, 1, 0}, {"anon", false, 0, 8}, {"anon", false, 1, 10},
		{"unevictable", false, 0, 0}, {"unevictable", false, 1, 0}, {"file", true, 0, 13}, {"file", true, 1, 0},
	}
	if diff := cmp.Diff(want, s.NUMA); diff != "" {
		t.Error(diff)
	}
	s = Stats{}
	if err := parseNUMAV2([]byte("anon N0="+strconv.FormatUint(3*pageSize, 10)+"\nfile N0=0\nkernel_stack N0=1\n"), &s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]NodePages{{"anon", true, 0, 3}, {"file", true, 0, 0}}, s.NUMA); diff != "" {
		t.Error(diff)
	}
}

func TestGarbageIsNoNode(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x\n", "anon N0\n", "anon=1 N0=x\n", "anon=1 0=1\n", "file=3 Nx=3\n"} {
		if parseNUMAV1([]byte(text), new(Stats)) == nil && parseNUMAV2([]byte(text), new(Stats)) == nil {
			t.Errorf("%q was understood", text)
		}
	}
}
