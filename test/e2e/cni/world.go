package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// Newest is the spec version that cases use unless they are about others.
const Newest = "1.1.0"

// World is one host with a plugin on it.
type World struct {
	Plugin
	*Host
	daemon Daemon

	mu    sync.Mutex
	boxes []*Box
}

// NewWorld makes a host for a plugin, whose daemon is not started yet. Close it when done.
func NewWorld(p Plugin) (*World, error) {
	h, err := newHost()
	if err != nil {
		return nil, err
	}
	if p.Patience == 0 {
		p.Patience = 30 * time.Second
	}
	return &World{Plugin: p, Host: h}, nil
}

func (w *World) start(ctx context.Context) (err error) {
	if w.Start != nil && w.daemon == nil {
		w.daemon, err = w.Plugin.Start(ctx, w.Host)
	}
	return err
}

// crash ends the daemon with SIGKILL.
func (w *World) crash() error {
	if w.daemon == nil {
		return nil
	}
	err := w.daemon.Kill()
	w.daemon = nil
	return err
}

// Close ends the daemon, the containers and the host.
func (w *World) Close() error {
	var err error
	if w.daemon != nil {
		err = w.daemon.Stop()
	}
	for _, b := range w.boxes {
		b.End()
	}
	return errors.Join(err, w.Host.close())
}

// Box makes a container that ends with the world.
func (w *World) Box(id string) (*Box, error) {
	b, err := NewBox(id)
	if err == nil {
		w.mu.Lock()
		w.boxes = append(w.boxes, b)
		w.mu.Unlock()
	}
	return b, err
}

// Call is one call of the plugin.
type Call struct {
	Version string // "": Newest
	ID      string
	NetNS   string
	IfName  string // "": eth0
	Args    [][2]string
	Caps    map[string]any
	// Kill ends the plugin with SIGKILL so long after its start; 0: never.
	Kill time.Duration
	Env  []string // added
}

// To is the call for a container.
func To(b *Box) Call { return Call{ID: b.ID, NetNS: b.Path} }

func (c Call) runtime() *libcni.RuntimeConf {
	if c.IfName == "" {
		c.IfName = "eth0"
	}
	return &libcni.RuntimeConf{ContainerID: c.ID, NetNS: c.NetNS, IfName: c.IfName, Args: c.Args, CapabilityArgs: c.Caps}
}

func (w *World) list(c Call) (*libcni.NetworkConfigList, error) {
	v := c.Version
	if v == "" {
		v = Newest
	}
	return libcni.NetworkConfFromBytes([]byte(w.conflist(v)))
}

// conflist is the plugin's, in a spec version.
func (w *World) conflist(version string) string {
	return strings.Replace(w.Conflist(w.Host), `"cniVersion":"`+Newest+`"`, `"cniVersion":"`+version+`"`, 1)
}

func (w *World) libcni(c Call) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(w.Path, filepath.Join(w.Dir, "cache"), &executor{w: w, kill: c.Kill, env: c.Env, PluginDecoder: version.PluginDecoder{}})
}

// Add attaches a container.
func (w *World) Add(ctx context.Context, c Call) (*types100.Result, error) {
	list, err := w.list(c)
	if err != nil {
		return nil, err
	}
	res, err := w.libcni(c).AddNetworkList(ctx, list, c.runtime())
	if err != nil {
		return nil, fmt.Errorf("ADD %s: %w", c.ID, err)
	}
	return types100.NewResultFromResult(res)
}

// Del takes a container off.
func (w *World) Del(ctx context.Context, c Call) error {
	list, err := w.list(c)
	if err != nil {
		return err
	}
	if err := w.libcni(c).DelNetworkList(ctx, list, c.runtime()); err != nil {
		return fmt.Errorf("DEL %s: %w", c.ID, err)
	}
	return nil
}

func (w *World) check(ctx context.Context, c Call) error {
	list, err := w.list(c)
	if err != nil {
		return err
	}
	return w.libcni(c).CheckNetworkList(ctx, list, c.runtime())
}

// executor runs plugins on the host, and may kill one in the middle.
type executor struct {
	w    *World
	kill time.Duration
	env  []string
	version.PluginDecoder
}

func (e *executor) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (out []byte, err error) {
	environ = append(append(environ, e.w.Env...), e.env...)
	fault := within(e.w.ns, func() error {
		if e.kill == 0 {
			raw := &invoke.RawExec{Stderr: os.Stderr}
			out, err = raw.ExecPlugin(ctx, path, stdin, environ)
			return nil
		}
		c := exec.CommandContext(ctx, path)
		c.Env, c.Stdin = environ, strings.NewReader(string(stdin))
		if err = c.Start(); err != nil {
			return nil
		}
		timer := time.AfterFunc(e.kill, func() { _ = c.Process.Kill() }) // it may have ended
		defer timer.Stop()
		err = c.Wait()
		return nil
	})
	return out, errors.Join(err, fault)
}

// raw executes the first plugin of the list directly and gives its exit code and what it printed.
func (w *World) raw(ctx context.Context, stdin string, env ...string) (code int, out string, err error) {
	list, err := w.list(Call{})
	if err != nil {
		return 0, "", err
	}
	bin, err := invoke.FindInPath(list.Plugins[0].Network.Type, w.Path)
	if err != nil {
		return 0, "", err
	}
	err = within(w.ns, func() error {
		c := exec.CommandContext(ctx, bin)
		c.Env = append(append([]string{"PATH=" + os.Getenv("PATH"), "CNI_PATH=" + strings.Join(w.Path, ":")}, w.Env...), env...)
		c.Stdin = strings.NewReader(stdin)
		b, err := c.Output()
		out, code = string(b), c.ProcessState.ExitCode()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil
		}
		return err
	})
	return code, out, err
}

// single is the configuration that the first plugin of the list gets, with more keys.
func (w *World) single(more string) (string, error) {
	list, err := w.list(Call{})
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(list.Plugins[0].Bytes))
	return fmt.Sprintf(`{"cniVersion":%q,"name":%q,%s%s`, Newest, list.Name, more, text[1:]), nil
}

// before is what the host has when the plugin's lasting things (a bridge, a table) are there: after one ADD and DEL.
func (w *World) before(ctx context.Context) (string, error) {
	b, err := w.Box("first")
	if err != nil {
		return "", err
	}
	if _, err := w.Add(ctx, To(b)); err != nil {
		return "", err
	}
	if err := w.Del(ctx, To(b)); err != nil {
		return "", err
	}
	b.End()
	return w.Calm()
}

// leavesNothing makes a case also ask that the host becomes, within so long after it, as it was before.
func leavesNothing(within time.Duration, run func(context.Context, *World) error) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		before, err := w.before(ctx)
		if err != nil {
			return err
		}
		if err := run(ctx, w); err != nil {
			return err
		}
		return w.Same(before, within)
	}
}

// Calm waits until nothing changes on the host for a while: plugins may remove in batches.
func (w *World) Calm() (string, error) {
	last, same := "", 0
	for range 200 {
		now, err := w.all()
		if err != nil {
			return "", err
		}
		if same++; now != last {
			same = 0
		}
		if last = now; same == 5 {
			return now, nil
		}
		time.Sleep(50 * time.Millisecond) // there is no event for "nothing more happens"
	}
	return "", errors.New("the host does not become calm")
}

// all is what is on the host, and who has which address.
func (w *World) all() (string, error) {
	left, err := w.Left()
	if err != nil || w.Leases == nil {
		return left, err
	}
	leases, err := w.Leases(w.Host)
	return left + "\nleases:\n" + leases, err
}

// Same waits until the host is as it was, and names the difference when it does not become so.
func (w *World) Same(before string, within time.Duration) error {
	var now string
	for began := time.Now(); ; {
		var err error
		if now, err = w.all(); err != nil {
			return err
		}
		if now == before {
			return nil
		}
		if time.Since(began) > within {
			break
		}
		time.Sleep(50 * time.Millisecond) // the plugin tells nobody when it is done
	}
	return fmt.Errorf("the host is not as before after %s:%s", within, difference(before, now))
}

// difference gives the lines that came and went.
func difference(before, after string) string {
	count := map[string]int{}
	for l := range strings.SplitSeq(after, "\n") {
		count[l]++
	}
	for l := range strings.SplitSeq(before, "\n") {
		count[l]--
	}
	var out strings.Builder
	for l := range strings.SplitSeq(before+"\n"+after, "\n") {
		if n := count[l]; n != 0 {
			fmt.Fprintf(&out, "\n%+d %s", n, l)
			count[l] = 0
		}
	}
	return out.String()
}

// addressOf is the first IPv4 address in a result.
func addressOf(res *types100.Result) (netip.Addr, error) {
	for _, ip := range res.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("the result has no IPv4 address")
}

// reaches sends one echo request from the host to an address. It is a container's word that it is attached.
func (w *World) reaches(addr netip.Addr) error {
	_, err := w.Sh("ping -c1 -W1 " + addr.String())
	return err
}

// said is what an error says, where there need not be one.
func said(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}
