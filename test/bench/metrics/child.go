package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// spent is what a process has used so far by the kernel's account of it.
type spent struct {
	CPU int64 `json:"cpu"` // nanoseconds, user and system, all threads
	RSS int64 `json:"rss"` // bytes
	// Files is the part of RSS that is code and other mapped files.
	Files int64 `json:"files"`
}

// child is the process that is scraped. It serves /metrics, and /spent by getrusage of itself.
func child(ctx context.Context, kind, socket, containerd string, n int) error {
	var page http.Handler
	var err error
	switch kind {
	case "ours":
		page, err = ours(ctx, containerd)
	case "growth":
		page, err = synthetic(n)
	case "cadvisor":
		page, err = cadvisor(containerd)
	default:
		err = fmt.Errorf("serve %q: it is ours, growth or cadvisor", kind)
	}
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", page)
	mux.HandleFunc("GET /spent", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(spending())
	})
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func spending() spent {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for oneself
	s := spent{CPU: u.Utime.Nano() + u.Stime.Nano()}
	text, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(text))
	if len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		s.RSS = pages * int64(os.Getpagesize())
	}
	if len(f) > 2 {
		pages, _ := strconv.ParseInt(f[2], 10, 64)
		s.Files = pages * int64(os.Getpagesize())
	}
	return s
}
