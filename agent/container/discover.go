package container

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-dev/fairlead/agent"
)

// wellKnown are the runtimes' sockets below /run.
var wellKnown = []string{
	"docker.sock", "podman/podman.sock", "containerd/containerd.sock", "k3s/containerd/containerd.sock", "crio/crio.sock",
}

// lookEvery is how often the sockets' paths are looked at; a look is one stat each.
const lookEvery = time.Second

// discover finds runtimes by their sockets, now and whenever one appears, and starts to follow each.
func (v *Inventory) discover(ctx context.Context, g *agent.Group) error {
	d := &discovery{inventory: v, places: map[string]*place{}, following: map[Runtime]bool{}, answers: make(chan answer)}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, path := range d.unsettled() {
			g.Go(func(ctx context.Context) error {
				select {
				case d.answers <- v.identify(ctx, path):
				case <-ctx.Done():
				}
				return nil
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case a := <-d.answers:
			for _, s := range d.take(a) {
				v.log.Info("runtime found", "runtime", s.Name(), "path", s.Socket())
				g.Go(func(ctx context.Context) error { return v.follow(ctx, s) })
			}
		}
	}
}

type discovery struct {
	inventory *Inventory
	places    map[string]*place // by resolved path
	following map[Runtime]bool
	answers   chan answer
}

// place is one socket. It is asked who answers there until that is settled, and again when the file is another one.
type place struct {
	file            fileID
	asking, settled bool
	next            time.Time // not asked again before
}

type fileID struct{ dev, ino uint64 }

// answer is who answers at a path.
type answer struct {
	path    string
	conn    *grpc.ClientConn // that the sources share; nil for an engine
	sources []Source
	settled bool
}

// unsettled gives the sockets that are to be asked now, and notes that they are.
func (d *discovery) unsettled() []string {
	var out []string
	for _, path := range d.paths() {
		file, ok := socketAt(path)
		if !ok {
			continue
		}
		p := d.places[path]
		if p == nil {
			p = &place{}
			d.places[path] = p
		}
		if p.file != file {
			p.file, p.settled, p.next = file, false, time.Time{}
		}
		if !p.asking && !p.settled && !time.Now().Before(p.next) {
			p.asking = true
			out = append(out, path)
		}
	}
	return out
}

// take notes an answer and gives the sources in it that are new.
func (d *discovery) take(a answer) []Source {
	p := d.places[a.path]
	p.asking, p.settled, p.next = false, a.settled, time.Now().Add(lookEvery)
	var found []Source
	for _, s := range a.sources {
		if !d.following[s.Name()] {
			d.following[s.Name()] = true
			found = append(found, s)
		}
	}
	if len(found) == 0 && a.conn != nil {
		_ = a.conn.Close() // nobody uses it: those whom it reached are followed already, or there is nobody
	}
	return found
}

// paths gives the sockets to look at, each once: /run/docker.sock may be a link to Podman's.
func (d *discovery) paths() []string {
	cfg := d.inventory.cfg
	var out []string
	for _, name := range wellKnown {
		out = append(out, filepath.Join(cfg.Run, name))
	}
	out = append(out, cfg.Sockets...)
	for i, path := range out {
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			out[i] = resolved
		}
	}
	var once []string
	for _, path := range out {
		if !slices.Contains(once, path) {
			once = append(once, path)
		}
	}
	return once
}

func socketAt(path string) (fileID, bool) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return fileID{}, false
	}
	return fileID{st.Dev, st.Ino}, true
}

// identify asks a socket what it speaks. The answer is settled when every question was answered.
func (v *Inventory) identify(ctx context.Context, path string) answer {
	if kind, err := within(ctx, func(ctx context.Context) (string, error) { return engineAt(ctx, path) }); err == nil {
		return answer{path: path, sources: []Source{newDocker(v.nameFor(kind, path), path)}, settled: true}
	}
	conn, err := dialGRPC(path)
	if err != nil {
		return answer{path: path}
	}
	a := answer{path: path, settled: true}
	c := &containerd{socket: path, conn: conn}
	switch err := bounded(ctx, answerWithin, c.Ping); {
	case err == nil:
		c.name = v.nameFor("containerd", path)
		a.sources = append(a.sources, c)
	case status.Code(err) != codes.Unimplemented:
		a.settled = false
	}
	r := &criRuntime{socket: path, conn: conn}
	switch err := bounded(ctx, answerWithin, r.Ping); {
	case err == nil:
		r.name = v.nameFor("cri", path)
		if len(a.sources) > 0 {
			r.events = c
		}
		a.sources = append(a.sources, r)
	case status.Code(err) != codes.Unimplemented:
		a.settled = false
	}
	a.conn = conn
	return a
}

// engineAt asks a socket in HTTP whether an engine of the Docker API answers there, and which. An http.Client would
// print a warning when a gRPC server, which speaks first, answers in its own tongue.
func engineAt(ctx context.Context, path string) (kind string, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a read that waits
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return "", err
	}
	if err := req.Write(conn); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, kind, err = engine(resp.Header)
	return kind, err
}

// nameFor names a runtime: the first of its kind by the kind alone, further ones with their socket behind it.
func (v *Inventory) nameFor(kind, path string) Runtime {
	v.mu.Lock()
	defer v.mu.Unlock()
	name, ok := v.names[kind+" "+path]
	if !ok {
		name = Runtime(kind)
		for _, taken := range v.names {
			if taken == name {
				name = Runtime(kind + "@" + path)
				break
			}
		}
		v.names[kind+" "+path] = name
	}
	return name
}

// within asks one question, bounded by answerWithin.
func within[T any](ctx context.Context, ask func(context.Context) (T, error)) (out T, err error) {
	err = bounded(ctx, answerWithin, func(ctx context.Context) error {
		out, err = ask(ctx)
		return err
	})
	return out, err
}

func unixTransport(path string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: listTogether,
		IdleConnTimeout:     30 * time.Second,
	}
}
