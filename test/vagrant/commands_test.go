//go:build vm

package vagrant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-dev/fairlead/test/vagrant/line"
	"github.com/fairlead-dev/fairlead/test/vagrant/machine"
)

// The bounds of what a story waits for. Under emulation Debian is up in half a minute on an idle host.
const (
	bootBound    = 6 * time.Minute
	vagrantBound = 15 * time.Minute // makes a machine, and installs packages on it
	commandBound = 2 * time.Minute
	tryEach      = 2 * time.Second // more would slow down what is waited for: two emulated cores
)

// story is one story's machines. Its commands are called one after the other.
type story struct {
	world
	name, dir string
	net       *machine.Switch
	machines  map[string]*machine.Machine
	order     []string
	debian    map[string]bool
}

type storyKey struct{}

// setup prepares a story; what it starts ends with it.
func (w world) setup(env *testscript.Env) error {
	// Not below the work directory, whose path is too long for a socket.
	dir, err := os.MkdirTemp("", "fl-vm-")
	if err != nil {
		return err
	}
	net, err := machine.NewSwitch(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s := &story{world: w, dir: dir, net: net, machines: map[string]*machine.Machine{}, debian: map[string]bool{}}
	env.Values[storyKey{}] = s
	env.Setenv("PACKAGES", os.Getenv("PACKAGES"))
	env.Defer(s.end)
	return nil
}

// end keeps what the machines said, and then leaves nothing of them.
func (s *story) end() {
	out := filepath.Join(s.out, s.name)
	if s.name == "" || s.out == "" {
		out = s.dir
	}
	err := os.MkdirAll(out, 0o755)
	for _, name := range s.order {
		m := s.machines[name]
		if s.debian[name] && m.Running() {
			ctx, cancel := context.WithTimeout(context.Background(), commandBound)
			var journal bytes.Buffer
			_, err2 := m.Exec(ctx, line.Command{Argv: []string{"journalctl", "--no-pager", "-o", "short-precise"}, Stdout: &journal})
			err = errors.Join(err, err2, os.WriteFile(filepath.Join(out, name+".journal"), journal.Bytes(), 0o644))
			cancel()
		}
		m.Stop()
		console, err2 := os.ReadFile(m.Log)
		err = errors.Join(err, err2, os.WriteFile(filepath.Join(out, name+".console"), console, 0o644))
	}
	s.net.Close()
	if err = errors.Join(err, os.RemoveAll(s.dir)); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err) // the story's own end says more
	}
}

// commands are what a story may say besides testscript's own words.
func (w world) commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"boot": boot, "on": on, "eventually": eventually, "put": put, "reset": reset,
	}
}

func storyOf(ts *testscript.TestScript) *story {
	s := ts.Value(storyKey{}).(*story)
	s.name = ts.Name()
	return s
}

func (s *story) machine(ts *testscript.TestScript, name string) *machine.Machine {
	m := s.machines[name]
	if m == nil {
		ts.Fatalf("no machine is called %q; boot it first", name)
	}
	return m
}

// took puts a figure into the story's log, and at once on stderr: testscript shows its log only at the story's end.
func (s *story) took(ts *testscript.TestScript, began time.Time, what string) {
	took := time.Since(began).Seconds()
	ts.Logf("[%.1f s]", took)
	if len(what) > 100 {
		what = what[:97] + "..."
	}
	fmt.Fprintf(os.Stderr, "vm: %s: %6.1f s  %s\n", s.name, took, strings.ReplaceAll(what, "\n", " "))
}

// boot NAME... starts machines with Debian and waits until their systemd has started everything.
// boot -small NAME... starts machines that are a kernel and busybox.
// The first machine of a story has 192.168.77.11, the next 192.168.77.12, and so on.
func boot(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	small := len(args) > 0 && args[0] == "-small"
	if small {
		args = args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: boot [-small] NAME...")
	}
	for _, name := range args {
		if s.machines[name] != nil {
			ts.Fatalf("%s runs already", name)
		}
		cfg := s.base
		cfg.Name, cfg.Dir, cfg.Switch = name, s.dir, s.net
		cfg.Addr = fmt.Sprintf("192.168.77.%d/24", 11+len(s.order))
		if small {
			cfg.Debian, cfg.MiB = "", 768
		}
		m, err := s.start(cfg)
		ts.Check(err)
		s.machines[name], s.debian[name] = m, !small
		s.order = append(s.order, name)
	}
	s.each(ts, args, (*machine.Machine).Boot)
}

// start starts a machine by what the world has: QEMU, or Vagrant.
func (s *story) start(cfg machine.Config) (*machine.Machine, error) {
	if !s.vagrant {
		return machine.Start(cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), vagrantBound)
	defer cancel()
	return machine.StartVagrant(ctx, cfg.Name, cfg.Dir)
}

// reset NAME... pulls the machines' reset lines all at once and waits until they are up again.
func reset(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: reset NAME...")
	}
	s.each(ts, args, (*machine.Machine).Reset)
}

// each brings several machines up at the same time.
func (s *story) each(ts *testscript.TestScript, names []string, up func(*machine.Machine, context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), bootBound)
	defer cancel()
	began := time.Now()
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		m := s.machine(ts, name)
		wg.Go(func() {
			errs[i] = up(m, ctx)
			if errs[i] == nil && s.debian[name] {
				errs[i] = settled(ctx, m)
			}
		})
	}
	wg.Wait()
	ts.Check(errors.Join(errs...))
	s.took(ts, began, strings.Join(names, ", ")+" up")
}

// settled waits until systemd has started everything, and says what it could not start.
func settled(ctx context.Context, m *machine.Machine) error {
	var out bytes.Buffer
	code, err := m.Exec(ctx, line.Command{Argv: []string{"sh", "-c", "systemctl is-system-running --wait || { systemctl --failed; systemctl list-jobs; exit 1; }"}, Stdout: &out, Stderr: &out})
	if err != nil || code != 0 {
		return fmt.Errorf("boot %s: systemd is not content: %w\n%s", m.Name, err, &out)
	}
	return nil
}

// on NAME [-t BOUND] COMMAND [ARG...] runs a command in a machine. One word alone is a line for sh.
func on(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	bound := commandBound
	if len(args) > 2 && args[1] == "-t" {
		var err error
		bound, err = time.ParseDuration(args[2])
		ts.Check(err)
		args = append(args[:1:1], args[3:]...)
	}
	if len(args) < 2 {
		ts.Fatalf("usage: on NAME [-t BOUND] COMMAND [ARG...]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	began := time.Now()
	code, err := s.machine(ts, args[0]).Exec(ctx, line.Command{Argv: argv(args[1:]), Stdout: io.MultiWriter(ts.Stdout(), &verdicts{story: s.name}), Stderr: ts.Stderr()})
	ts.Check(err)
	s.took(ts, began, fmt.Sprintf("exit %d on %s: %s", code, args[0], args[1:]))
	if (code != 0) != neg {
		ts.Fatalf("on %s: exit code %d", args[0], code)
	}
}

// verdicts shows at once which packages of /fairlead/run-tests passed and which tests failed; all of them take long.
type verdicts struct {
	story string
	line  []byte
}

func (v *verdicts) Write(b []byte) (int, error) {
	v.line = append(v.line, b...)
	for {
		line, rest, whole := bytes.Cut(v.line, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		for _, verdict := range []string{"ok ", "FAIL ", "--- FAIL"} {
			if bytes.HasPrefix(line, []byte(verdict)) {
				fmt.Fprintf(os.Stderr, "vm: %s: %s\n", v.story, line)
			}
		}
		v.line = rest
	}
}

func argv(args []string) []string {
	if len(args) == 1 {
		return []string{"sh", "-c", args[0]}
	}
	return args
}

// eventually BOUND NAME COMMAND [ARG...] runs a command again and again until it succeeds, or with ! until it fails.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if len(args) < 3 {
		ts.Fatalf("usage: eventually BOUND NAME COMMAND [ARG...]")
	}
	bound, err := time.ParseDuration(args[0])
	ts.Check(err)
	m := s.machine(ts, args[1])
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), bound+commandBound)
	defer cancel()
	for {
		var stdout, stderr bytes.Buffer
		code, err := m.Exec(ctx, line.Command{Argv: argv(args[2:]), Stdout: &stdout, Stderr: &stderr})
		ts.Check(err)
		late := time.Since(began) > bound
		if (code != 0) == neg || late {
			fmt.Fprint(ts.Stdout(), stdout.String())
			fmt.Fprint(ts.Stderr(), stderr.String())
			s.took(ts, began, fmt.Sprintf("exit %d on %s: %s", code, m.Name, args[2:]))
			if (code != 0) != neg {
				ts.Fatalf("on %s: still exit code %d after %s", m.Name, code, bound)
			}
			return
		}
		time.Sleep(tryEach) // the machine cannot tell when what the command looks at changes
	}
}

// put NAME FILE PATH writes a file of the story into a machine, with directories as needed.
func put(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if neg || len(args) != 3 {
		ts.Fatalf("usage: put NAME FILE PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandBound)
	defer cancel()
	code, err := s.machine(ts, args[0]).Exec(ctx, line.Command{
		Argv: []string{"sh", "-ec", `mkdir -p "$(dirname "$0")" && cat >"$0"`, args[2]}, Stdin: []byte(ts.ReadFile(args[1])), Stderr: ts.Stderr(),
	})
	ts.Check(err)
	if code != 0 {
		ts.Fatalf("put %s on %s: exit code %d", args[2], args[0], code)
	}
}
