package cgroup

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
)

// Huge is the use of huge pages of one size.
type Huge struct {
	PageSize        string // as the files are named: "2MB"
	Usage, MaxUsage Value  // bytes; v2 has no highest usage
	HitLimit        Value  // how often usage met the limit: v1 failcnt, v2 events max
}

// huge gives the entry of one page size, made on first use. The pointer is valid until the next call.
func (s *Stats) huge(size string) *Huge {
	for i := range s.Huge {
		if h := &s.Huge[i]; h.PageSize == size {
			return h
		}
	}
	s.Huge = append(s.Huge, Huge{PageSize: size})
	return &s.Huge[len(s.Huge)-1]
}

// hugeFiles are the files of each page size that the cgroup in dir has. Sizes depend on the processor and on the kernel
// command line, so they are looked for.
func hugeFiles(dir string, v2 bool) []format {
	suffix := ".usage_in_bytes"
	if v2 {
		suffix = ".current"
	}
	found, _ := filepath.Glob(filepath.Join(dir, "hugetlb.*"+suffix)) // the pattern is valid
	slices.Sort(found)
	var out []format
	for _, path := range found {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "hugetlb."), suffix)
		if strings.Contains(size, ".") {
			continue // rsvd: reservations
		}
		of := func(name string, field func(*Huge) *Value) format {
			return format{name: "hugetlb." + size + name, parse: func(b []byte, s *Stats) (err error) {
				*field(s.huge(size)), err = number(b)
				return err
			}}
		}
		usage := func(h *Huge) *Value { return &h.Usage }
		if v2 {
			out = append(out, of(suffix, usage), format{name: "hugetlb." + size + ".events", parse: func(b []byte, s *Stats) error {
				return keyed(b, func(key []byte) *Value {
					if bytes.Equal(key, []byte("max")) {
						return &s.huge(size).HitLimit
					}
					return nil
				})
			}})
			continue
		}
		out = append(out, of(suffix, usage),
			of(".max_usage_in_bytes", func(h *Huge) *Value { return &h.MaxUsage }),
			of(".failcnt", func(h *Huge) *Value { return &h.HitLimit }))
	}
	return out
}
