package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Finding is one thing that `fairlead doctor` looked at.
type Finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to change when it is not OK, or what follows
}

// Examine looks at what this kernel and this process's limits allow.
func (r Root) Examine() []Finding {
	return []Finding{r.kernel(), r.cgroupLayout(), r.psi(), files(), r.inotify()}
}

func (r Root) kernel() Finding {
	f := Finding{What: "kernel", OK: true}
	b, err := os.ReadFile(filepath.Join(r.Proc, "sys/kernel/osrelease"))
	f.Found = strings.TrimSpace(string(b))
	if err != nil {
		f.OK, f.Found, f.Advice = false, err.Error(), "set host.proc to where the host's /proc is mounted"
	}
	return f
}

func (r Root) cgroupLayout() Finding {
	h, err := r.Cgroups()
	if err != nil {
		return Finding{What: "cgroups", Found: err.Error(), Advice: "mount the host's cgroup file systems below host.sys"}
	}
	return Finding{What: "cgroups", OK: true, Found: h.Mode()}
}

func (r Root) psi() Finding {
	if _, err := os.Stat(filepath.Join(r.Proc, "pressure/cpu")); err != nil {
		return Finding{What: "pressure stall information", OK: true, Found: "not offered", Advice: "boot with psi=1 to have it"}
	}
	return Finding{What: "pressure stall information", OK: true, Found: "offered"}
}

// files wants room for 13 cgroup files of 100 containers and 1,000 logs.
func files() Finding {
	const enough = 4096
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return Finding{What: "open files", Found: err.Error()}
	}
	f := Finding{What: "open files", OK: limit.Cur >= enough, Found: fmt.Sprintf("limit %d", limit.Cur)}
	if !f.OK {
		f.Advice = "raise LimitNOFILE of fairlead.service; below it cgroup files are opened at each scrape"
	}
	return f
}

// inotify is needed for one instance and a watch per log directory (inotify(7), /proc interfaces).
func (r Root) inotify() Finding {
	const enough = 8192
	b, err := os.ReadFile(filepath.Join(r.Proc, "sys/fs/inotify/max_user_watches"))
	if err != nil {
		return Finding{What: "inotify", Found: err.Error()}
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	f := Finding{What: "inotify", OK: n >= enough, Found: fmt.Sprintf("%d watches", n)}
	if !f.OK {
		f.Advice = "sysctl -w fs.inotify.max_user_watches=524288; each directory with logs takes one"
	}
	return f
}
