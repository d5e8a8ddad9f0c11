//go:build kernel

package logship

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// shipperEnv makes the test binary an agent of its own: a configuration and containers as JSON.
const shipperEnv = "FAIRLEAD_TEST_SHIPPER"

type shipperJob struct {
	Dir        string
	Config     Config
	Containers []container.Container
}

// TestShipperProcess is no test: it is the agent that TestKill9... starts and kills.
func TestShipperProcess(t *testing.T) {
	text := os.Getenv(shipperEnv)
	if text == "" {
		t.Skip("started by the kill tests only")
	}
	var job shipperJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := build(t, job.Dir, job.Config, newInventory(job.Containers...)).Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// killAtRandom starts a shipper and kills it, so many times or a few in short runs, and tells how many.
func killAtRandom(t *testing.T, job shipperJob, times int) (kills int) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	if testing.Short() {
		times = 2
	}
	for range times {
		cmd := startShipper(t, job)
		time.Sleep(400*time.Millisecond + time.Duration(random.IntN(600))*time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
	}
	return times
}

func startShipper(t *testing.T, job shipperJob) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestShipperProcess$")
	cmd.Env = append(os.Environ(), shipperEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// flow writes numbered lines at a rate, to a docker log that is rotated and to a plain file.
func flow(ctx context.Context, t *testing.T, docker, plain string, rate int) (done chan int) {
	done = make(chan int, 1)
	go func() {
		n := 0
		begin := time.Now()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		rotated := time.Now()
		for ctx.Err() == nil {
			<-tick.C
			if time.Since(rotated) > 700*time.Millisecond {
				rotated = time.Now()
				for k := 4; k >= 1; k-- {
					_ = os.Rename(fmt.Sprintf("%s.%d", docker, k), fmt.Sprintf("%s.%d", docker, k+1))
				}
				_ = os.Rename(docker, docker+".1")
			}
			var d, p []byte
			for due := int(time.Since(begin).Seconds() * float64(rate)); n < due; n++ {
				d = fmt.Appendf(d, `{"log":"line %d\n","stream":"stdout","time":"2026-11-21T09:20:00.000000001Z"}`+"\n", n)
				p = fmt.Appendf(p, "line %d\n", n)
			}
			appendTo(t, docker, string(d))
			appendTo(t, plain, string(p))
		}
		done <- n
	}()
	return done
}

func TestKill9UnderLoadLosesNothingAndTheFileHasEachLineOnce(t *testing.T) {
	if os.Getenv(shipperEnv) != "" {
		t.Skip("this is the shipper")
	}
	dir := t.TempDir()
	r := sinktest.Listen(t, "")
	c := container.Container{ID: "c1", Name: "c1", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "c/c1-json.log"), Format: container.DockerJSON}}
	if err := os.MkdirAll(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := both(dir, r.Addr)
	cfg.Files = []File{{Path: filepath.Join(dir, "p/*")}}
	cfg.Pins = filepath.Join(dir, "pins")
	plain := filepath.Join(dir, "p/plain.log")
	writeFile(t, plain, "")
	job := shipperJob{dir, cfg, []container.Container{c}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	flowing := flow(ctx, t, c.Log.Path, plain, 5000)

	kills := killAtRandom(t, job, 5)
	cmd := startShipper(t, job)
	time.Sleep(300 * time.Millisecond)
	cancel()
	n := <-flowing
	copied := filepath.Join(dir, "copy.log")
	eventually(t, "every line in the file", func() bool { return len(lines(copied)) >= 2*n })
	eventually(t, "every line at syslog", func() bool { // some come twice
		all := r.Messages()
		docker, plain := byLog(all)
		return len(all) >= 2*n && complete(docker, n) && complete(plain, n)
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("shipper: %v", err)
	}
	for name, all := range map[string][]string{"file": lines(copied), "syslog": r.Messages()} {
		docker, plain := byLog(all)
		for kind, got := range map[string][]string{"docker": docker, "plain": plain} {
			lost, doubled, what := tally(got, n)
			t.Logf("%s sink, %s: %d lines, %d lost, %d doubled over %d kills %s", name, kind, n, lost, doubled, kills, what)
			if lost > 0 || name == "file" && doubled > 0 || doubled > kills*1000 {
				t.Errorf("%s sink, %s: %d lost, %d doubled", name, kind, lost, doubled)
			}
		}
	}
}

// byLog tells the lines of a container from those of the file plain.log.
func byLog(all []string) (docker, plain []string) {
	for _, l := range all {
		if strings.Contains(l, "plain.log") {
			plain = append(plain, l)
		} else {
			docker = append(docker, l)
		}
	}
	return docker, plain
}

// traces writes records of three lines each, one line at a time, so that kills and rotations come in the middle of them.
func traces(ctx context.Context, t *testing.T, docker, plain string, rate int) (done chan int) {
	done = make(chan int, 1)
	go func() {
		n, begin, rotated := 0, time.Now(), time.Now()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil || n%3 != 0 {
			<-tick.C
			if time.Since(rotated) > 700*time.Millisecond {
				rotated = time.Now()
				for _, p := range []string{docker, plain} {
					for k := 4; k >= 1; k-- {
						_ = os.Rename(fmt.Sprintf("%s.%d", p, k), fmt.Sprintf("%s.%d", p, k+1))
					}
					_ = os.Rename(p, p+".1")
				}
			}
			for due := int(time.Since(begin).Seconds() * float64(rate)); n < due && (ctx.Err() == nil || n%3 != 0); n++ {
				line := fmt.Sprintf("record %d", n/3)
				if n%3 > 0 {
					line = fmt.Sprintf("  at %d.%d", n/3, n%3)
				}
				appendTo(t, docker, fmt.Sprintf(`{"log":"%s\n","stream":"stdout","time":"2026-11-21T09:20:00.000000001Z"}`+"\n", line))
				appendTo(t, plain, line+"\n")
			}
		}
		done <- n / 3
	}()
	return done
}

func TestKill9InTheMiddleOfAJoinedRecordNeitherLosesNorCutsNorDoublesIt(t *testing.T) {
	if os.Getenv(shipperEnv) != "" {
		t.Skip("this is the shipper")
	}
	dir := t.TempDir()
	c := container.Container{ID: "c1", Name: "c1", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "c/c1-json.log"), Format: container.DockerJSON}}
	plain := filepath.Join(dir, "p/plain.log")
	writeFile(t, c.Log.Path, "")
	writeFile(t, plain, "")
	// A record waits for its next line as long as the writer may be held up by a busy machine.
	cfg, copied := shaped1(dir, shape.Rule{Multiline: "^record", Timeout: 30 * time.Second})
	cfg.Files = []File{{Path: filepath.Join(dir, "p/*")}}
	cfg.Pins = filepath.Join(dir, "pins")
	job := shipperJob{dir, cfg, []container.Container{c}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	flowing := traces(ctx, t, c.Log.Path, plain, 1500)

	kills := killAtRandom(t, job, 6)
	cmd := startShipper(t, job)
	cancel()
	n := <-flowing
	// The last record is waited for no longer once another begins.
	appendTo(t, c.Log.Path, `{"log":"record end\n","stream":"stdout","time":"2026-11-21T09:20:00.000000001Z"}`+"\n")
	appendTo(t, plain, "record end\n")
	count := func() map[string]int {
		got := map[string]int{}
		for _, r := range strings.Split(strings.Join(lines(copied), "\n"), "\n2026-") {
			kind := "docker"
			if strings.Contains(r, "plain.log") {
				kind = "plain"
			}
			if i := strings.Index(r, "record "); i >= 0 {
				r = r[i:]
			}
			got[kind+" "+r]++
		}
		return got
	}
	want := func(kind string, i int) string {
		return fmt.Sprintf("%s record %d\n  at %d.1\n  at %d.2", kind, i, i, i)
	}
	eventually(t, "the last records", func() bool { got := count(); return got[want("docker", n-1)] > 0 && got[want("plain", n-1)] > 0 })
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("shipper: %v", err)
	}
	got, wrong := count(), 0
	for i := range n {
		for _, kind := range []string{"docker", "plain"} {
			if times := got[want(kind, i)]; times != 1 {
				if wrong++; wrong < 10 {
					t.Errorf("%s record %d is there %d times", kind, i, times)
				}
			}
			delete(got, want(kind, i))
		}
	}
	for r := range got {
		if !strings.HasSuffix(r, "record end") {
			t.Errorf("cut: %q", r)
		}
	}
	t.Logf("%d records in each of two logs, %d wrong, %d kills", n, wrong, kills)
}
