package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/google/go-cmp/cmp"
)

// ear collects what systemd would hear, without the MONOTONIC_USEC of the moment.
type ear struct {
	mu    sync.Mutex
	heard []string
}

func (e *ear) hear(message string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	message, _, _ = strings.Cut(message, "\nMONOTONIC_USEC=")
	if last := len(e.heard) - 1; last >= 0 && strings.HasPrefix(message, "STATUS=") && strings.HasPrefix(e.heard[last], "STATUS=") {
		e.heard = e.heard[:last] // how many states are passed through quickly is chance
	}
	e.heard = append(e.heard, message)
	return nil
}

func (e *ear) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.heard
	e.heard = nil
	return out
}

func TestSystemdHearsTheLifeOfTheAgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e ear
		up, fault := make(chan struct{}), make(chan struct{})
		b := start(t, func(s *Supervisor) { s.Notify = &Notifier{send: e.hear, watchdog: 20 * time.Second} },
			agent.Part{Name: "overlay", Run: func(ctx context.Context) error {
				select {
				case <-up:
				case <-ctx.Done():
					return nil
				}
				agent.Ready(ctx)
				select {
				case <-fault:
					return errors.New("fault")
				case <-ctx.Done():
					return nil
				}
			}}, well("api"))
		heard := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if d := cmp.Diff(want, e.take()); d != "" {
				t.Errorf("%s (-want +heard):\n%s", what, d)
			}
		}
		heard("before a part is up", "STATUS=not running: overlay (starting)")
		if _, err := b.Reload(t.Context(), nil); err != nil {
			t.Error(err)
		}
		heard("reload before READY")
		close(up)
		heard("parts are up, the caller is not", "STATUS=all 2 parts run")
		b.Ready()
		b.Ready()
		heard("all are up", "READY=1")
		time.Sleep(9 * time.Second)
		heard("before half of the watchdog's time")
		time.Sleep(22 * time.Second)
		heard("31 seconds of a 20 second watchdog", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
		if _, err := b.Reload(t.Context(), nil); err != nil {
			t.Error(err)
		}
		heard("reload", "RELOADING=1", "READY=1")
		close(fault)
		heard("a fault is told, and the agent is not taken for dead", "STATUS=not running: overlay (backing-off)")
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		heard("end", "STOPPING=1")
	})
}

func TestSystemdIsToldReadyAfterTheLastPartWhenTheCallerWasFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e ear
		b := start(t, func(s *Supervisor) { s.Notify = &Notifier{send: e.hear}; s.Ready() }, well("api"),
			agent.Part{Name: "mute", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		if heard := e.take(); slices.Contains(heard, "READY=1") {
			t.Errorf("heard %q while %+v", heard, b.of(t, "mute"))
		}
		time.Sleep(settleAfter)
		synctest.Wait()
		if d := cmp.Diff([]string{"STATUS=all 2 parts run", "READY=1"}, e.take()); d != "" {
			t.Errorf("(-want +heard):\n%s", d)
		}
	})
}

func TestWatchdogFallsSilentWhenTheSupervisorHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e ear
		var hang atomic.Bool
		hold := make(chan struct{})
		// The loop is held in its message: synthetic time would stand still while it waited for a mutex.
		start(t, func(s *Supervisor) {
			s.Notify = &Notifier{watchdog: 2 * time.Second, send: func(m string) error {
				if hang.Load() {
					<-hold
				}
				return e.hear(m)
			}}
		}, well("api"))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if heard := e.take(); !slices.Contains(heard, "WATCHDOG=1") {
			t.Errorf("heard %q of a loop that turns", heard)
		}
		hang.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if heard := e.take(); heard != nil {
			t.Errorf("heard %q of a loop that hangs", heard)
		}
		close(hold)
	})
}

func TestNotifierReachesRealSockets(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@fairlead-test-%d-%d", os.Getpid(), time.Now().UnixNano()),
	} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}
		n, err := NotifierFromEnv(func(k string) (string, bool) { v, ok := env[k]; return v, ok })
		if err != nil {
			t.Fatal(err)
		}
		if n.WatchdogInterval() != 30*time.Second {
			t.Errorf("%s: watchdog %v", name, n.WatchdogInterval())
		}
		if err := n.Send("READY=1", "STATUS=well"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := conn.Read(buf)
		if err != nil || string(buf[:got]) != "READY=1\nSTATUS=well" {
			t.Errorf("%s: heard %q, %v", name, buf[:got], err)
		}
	}
}

func TestNotifierReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env      map[string]string
		silent   bool
		watchdog time.Duration
		err      string
	}{
		{env: nil, silent: true},
		{env: map[string]string{"NOTIFY_SOCKET": ""}, silent: true},
		{env: map[string]string{"NOTIFY_SOCKET": "/x"}},
		{env: map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000"}, watchdog: time.Millisecond},
		{env: map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}}, // for another process
		{env: map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, err: "WATCHDOG_USEC"},
		{env: map[string]string{"NOTIFY_SOCKET": "vsock:2:1"}, err: "neither a path nor"},
	} {
		n, err := NotifierFromEnv(func(k string) (string, bool) { v, ok := c.env[k]; return v, ok })
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: error %v", c.env, err)
			}
			continue
		}
		if err != nil || (n == nil) != c.silent || n.WatchdogInterval() != c.watchdog {
			t.Errorf("%v: %+v, %v", c.env, n, err)
		}
		if c.silent && n.Send("READY=1") != nil {
			t.Errorf("%v: a silent notifier failed", c.env)
		}
	}
}

func TestReloadTimeIsTheMonotonicClock(t *testing.T) {
	t.Parallel()
	us, err := strconv.ParseInt(strings.TrimPrefix(monotonicUsec(), "MONOTONIC_USEC="), 10, 64)
	if err != nil || us <= 0 || us > time.Now().UnixMicro() {
		t.Errorf("%s, %v", monotonicUsec(), err)
	}
}
