package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// follower is the value of a file that changes only with the one before it.
type follower struct {
	leader, file   string
	was, is        [2]string // texts of both, before and after a change
	value          func(*Stats) Value
	before, behind Value
}

var followers = []follower{
	{
		leader: "cpu,cpuacct" + v1path + "/cpuacct.usage", file: "cpu,cpuacct" + v1path + "/cpuacct.stat",
		was: [2]string{"1000000000\n", "user 70\nsystem 30\n"}, is: [2]string{"2000000000\n", "user 150\nsystem 50\n"},
		value: func(s *Stats) Value { return s.CPU.User }, before: Known(700_000_000), behind: Known(1_500_000_000),
	},
	{
		leader: "blkio" + v1path + "/blkio.throttle.io_serviced_recursive", file: "blkio" + v1path + "/blkio.throttle.io_service_bytes_recursive",
		was: [2]string{"8:0 Read 1\nTotal 1\n", "8:0 Read 4096\nTotal 4096\n"}, is: [2]string{"8:0 Read 2\nTotal 2\n", "8:0 Read 8192\nTotal 8192\n"},
		value: func(s *Stats) Value { return s.IO[0].Bytes[Read] }, before: Known(4096), behind: Known(8192),
	},
}

func TestAFileThatFollowsAnotherIsReadAgainWhenThatHasChanged(t *testing.T) {
	t.Parallel()
	w, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // reading it is an error
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, f := range followers {
		dir, h, m := recorded(t, "v1")
		leader, file := filepath.Join(dir, cgroups, f.leader), filepath.Join(dir, cgroups, f.file)
		for name, left := range map[string]int{"kept": 100, "opened": 0} {
			r := NewTree(h, &budget{left: left}).Reader(m)
			defer r.Close()
			var buf Buffer
			var s Stats
			read := func(when string, want Value, fails bool) {
				t.Helper()
				if err := r.Read(&buf, &s); (err != nil) != fails || f.value(&s) != want {
					t.Errorf("%s, %s, %s: %+v, want %+v, %v", f.file, name, when, f.value(&s), want, err)
				}
			}
			write(t, leader, f.was[0])
			write(t, file, f.was[1])
			read("at first", f.before, false)
			read("once more", f.before, false)
			write(t, leader, f.is[0])
			write(t, file, f.is[1])
			read("when both have changed", f.behind, false)
			write(t, file, f.was[1]) // no kernel does that
			if left > 0 {
				read("while the leader stands still", f.behind, false)
			} else {
				read("while nothing is kept open, which would tell that the cgroup is another", f.before, false)
			}
			write(t, leader, "nonsense\n")
			read("when the leader says nothing", f.before, true)
			if left > 0 {
				write(t, leader, f.was[0])
				read("when it speaks again", f.before, false)
				for i := range r.files {
					if strings.HasSuffix(f.leader, "/"+r.files[i].name) {
						if err := unix.Dup2(int(w.Fd()), int(r.files[i].fd)); err != nil {
							t.Fatal(err)
						}
					}
				}
				write(t, file, f.is[1])
				read("when the leader cannot be read", f.behind, true)
			}
		}
	}
}

func TestAFileWhoseLeaderCannotBeReadIsRead(t *testing.T) {
	t.Parallel()
	for _, f := range followers {
		dir, h, m := recorded(t, "v1")
		if err := os.Remove(filepath.Join(dir, cgroups, f.leader)); err != nil {
			t.Fatal(err)
		}
		r := NewTree(h, &budget{left: 100}).Reader(m)
		defer r.Close()
		var buf Buffer
		var s Stats
		for text, want := range map[string]Value{f.is[1]: f.behind, f.was[1]: f.before} {
			write(t, filepath.Join(dir, cgroups, f.file), text)
			if err := r.Read(&buf, &s); err != nil || f.value(&s) != want {
				t.Errorf("%s: %+v, want %+v, %v", f.file, f.value(&s), want, err)
			}
		}
	}
}
