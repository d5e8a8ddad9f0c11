package cgroup

import (
	"bytes"
	"os"
)

// NodePages is how much of one kind of memory a cgroup has on one NUMA node.
type NodePages struct {
	Kind  string // "file", "anon" or "unevictable"
	Whole bool   // with all cgroups below it; v1 tells both, v2 this one only
	Node  uint64
	Pages uint64
}

// numaKinds keeps the strings, so that reading makes none.
var numaKinds = [...]string{"file", "anon", "unevictable"}

var (
	v1NUMA = []format{{name: "memory.numa_stat", parse: parseNUMAV1}}
	v2NUMA = []format{{name: "memory.numa_stat", parse: parseNUMAV2}}
)

var pageSize = uint64(os.Getpagesize())

// parseNUMAV1 reads "KIND=PAGES N0=PAGES N1=PAGES ..." lines, and the same as hierarchical_KIND.
func parseNUMAV1(text []byte, s *Stats) error {
	found := false
	for l := range bytes.Lines(text) {
		head, rest, _ := bytes.Cut(line(l), []byte{' '})
		key, _, _ := bytes.Cut(head, []byte{'='})
		key, whole := bytes.CutPrefix(key, []byte("hierarchical_"))
		for _, kind := range numaKinds {
			if string(key) == kind {
				found = true
				if err := s.nodes(kind, whole, rest, 1); err != nil {
					return err
				}
			}
		}
	}
	if !found {
		return garbage(text, "pages on nodes")
	}
	return nil
}

// parseNUMAV2 reads "KEY N0=BYTES N1=BYTES ..." lines.
func parseNUMAV2(text []byte, s *Stats) error {
	found := false
	for l := range bytes.Lines(text) {
		key, rest, _ := bytes.Cut(line(l), []byte{' '})
		for _, kind := range numaKinds {
			if string(key) == kind {
				found = true
				if err := s.nodes(kind, true, rest, pageSize); err != nil {
					return err
				}
			}
		}
	}
	if !found {
		return garbage(text, "bytes on nodes")
	}
	return nil
}

func (s *Stats) nodes(kind string, whole bool, text []byte, unit uint64) error {
	for f := range bytes.FieldsSeq(text) {
		name, value, _ := bytes.Cut(f, []byte{'='})
		number, isNode := bytes.CutPrefix(name, []byte{'N'})
		node, ok := digits(number)
		n, ok2 := digits(value)
		if !isNode || !ok || !ok2 {
			return garbage(f, "a node and a number")
		}
		s.NUMA = append(s.NUMA, NodePages{kind, whole, node, n / unit})
	}
	return nil
}
