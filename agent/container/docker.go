package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
)

// listTogether is how many containers are inspected at the same time by one List.
const listTogether = 8

// docker speaks the Docker Engine API, which Podman's service answers as well. The client is net/http: Docker's own Go
// module refuses old engines (API 1.41) and brings a tracing stack.
type docker struct {
	name   Runtime
	socket string
	client *http.Client

	mu  sync.Mutex
	api string // the newest API version that the engine speaks, asked at each Watch; "" asks for its default
	dir string // where a Docker Engine keeps its containers' logs, asked at each Watch; "" is unknown
}

func newDocker(name Runtime, socket string) *docker {
	return &docker{name: name, socket: socket, client: &http.Client{Transport: unixTransport(socket)}}
}

// Name implements Source.
func (d *docker) Name() Runtime { return d.name }

// Socket implements Source.
func (d *docker) Socket() string { return d.socket }

// Ping implements Source.
func (d *docker) Ping(ctx context.Context) error {
	_, err := d.ping(ctx)
	return err
}

// engine gives what an engine's answer to /_ping says in its header: the newest API version that it speaks, and whether it
// is Podman. /version says both as well, but Podman starts several programs to answer it, which on a slow host takes
// longer than answerWithin.
func engine(h http.Header) (api, kind string, err error) {
	if api = h.Get("Api-Version"); api == "" {
		return "", "", errors.New("the answer is not a container engine's")
	}
	if h.Get("Libpod-Api-Version") != "" {
		return api, "podman", nil
	}
	return api, "docker", nil
}

// ping asks for the newest API version that the engine speaks.
func (d *docker) ping(ctx context.Context) (api string, err error) {
	resp, err := d.open(ctx, "/_ping", nil)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	if api, _, err = engine(resp.Header); err != nil {
		return "", fmt.Errorf("ping: %w", err)
	}
	return api, nil
}

type dockerInfo struct{ DockerRootDir string }

func (d *docker) info(ctx context.Context) (i dockerInfo, err error) {
	err = d.ask(ctx, "/info", nil, &i)
	return i, err
}

// Watch implements Source by /events.
func (d *docker) Watch(ctx context.Context, changed func(Handle)) error {
	api, err := within(ctx, d.ping)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.api = api
	d.mu.Unlock()
	// Only for containers that are gone before their log has a path: without the answer all else works.
	if i, err := within(ctx, d.info); err == nil && i.DockerRootDir != "" && d.name.kind() == "docker" {
		d.mu.Lock()
		d.dir = filepath.Join(i.DockerRootDir, "containers")
		d.mu.Unlock()
	}
	resp, err := d.open(ctx, d.path("/events"), url.Values{"filters": {`{"type":["container"]}`}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	changed("") // the engine sends its header after it has subscribed
	for events := json.NewDecoder(resp.Body); ; {
		var e dockerEvent
		if err := events.Decode(&e); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		if id := e.id(); id != "" && e.matters() {
			changed(Handle(id))
		}
	}
}

type dockerEvent struct {
	Action string
	Status string `json:"status"` // Podman 4 leaves Action empty for some
	ID     string `json:"id"`
	Actor  struct{ ID string }
}

func (e *dockerEvent) id() string {
	if e.Actor.ID != "" {
		return e.Actor.ID
	}
	return e.ID
}

// matters leaves out what changes no container and comes often: the runs of health checks and other exec, attach, copies.
// What a health check found is a change. An action that is not known here matters.
func (e *dockerEvent) matters() bool {
	action, _, _ := strings.Cut(or(e.Action, e.Status), ":")
	for _, idle := range []string{"exec", "top", "resize", "attach", "detach", "archive-path", "extract-to-dir", "export", "kill", "copy"} {
		if strings.HasPrefix(action, idle) {
			return false
		}
	}
	return true
}

// List implements Source by one list and an inspection of each container.
func (d *docker) List(ctx context.Context) ([]Container, error) {
	var ids []struct{ ID string }
	err := bounded(ctx, answerWithin, func(ctx context.Context) error {
		return d.ask(ctx, d.path("/containers/json"), url.Values{"all": {"1"}}, &ids)
	})
	if err != nil {
		return nil, err
	}
	found := make([]Container, len(ids))
	gone := make([]bool, len(ids))
	work := make(chan int, len(ids))
	for i := range ids {
		work <- i
	}
	close(work)
	g := agent.NewGroup(ctx)
	for range min(listTogether, len(ids)) {
		g.Go(func(ctx context.Context) error {
			for i := range work {
				c, err := within(ctx, func(ctx context.Context) (Container, error) { return d.Get(ctx, Handle(ids[i].ID)) })
				if gone[i] = errors.Is(err, ErrGone); err != nil && !gone[i] {
					return err
				}
				found[i] = c
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []Container
	for i, c := range found {
		if !gone[i] {
			out = append(out, c)
		}
	}
	return out, nil
}

// Get implements Source.
func (d *docker) Get(ctx context.Context, h Handle) (Container, error) {
	var i inspected
	if err := d.ask(ctx, d.path("/containers/"+url.PathEscape(string(h))+"/json"), nil, &i); err != nil {
		return Container{}, fmt.Errorf("inspect %s: %w", h, err)
	}
	d.mu.Lock()
	i.expectLog(d.dir)
	d.mu.Unlock()
	return i.container(d.name), nil
}

// expectLog fills the path that a created container's log will have. The engine says it only when the container has
// started, and a short-lived one may be gone by then.
func (i *inspected) expectLog(dir string) {
	if i.LogPath == "" && dir != "" && i.HostConfig.LogConfig.Type == "json-file" && i.State.Status == "created" {
		i.LogPath = filepath.Join(dir, i.ID, i.ID+"-json.log")
	}
}

// inspected is what we read of an inspection.
type inspected struct {
	ID      string `json:"Id"`
	Name    string
	Created time.Time
	LogPath string
	State   struct {
		Status                string
		Running, Paused, Dead bool
		OOMKilled             bool
		Pid, ExitCode         int
		StartedAt, FinishedAt time.Time
		Health                struct{ Status string }
	}
	RestartCount int
	Config       struct {
		Image  string
		Labels map[string]string
	}
	HostConfig struct {
		Memory              int64
		NanoCpus            int64
		CPUQuota, CPUPeriod int64
		PidsLimit           int64
		LogConfig           struct {
			Type, Path string
			Config     map[string]string
		}
	}
	GraphDriver struct {
		Data map[string]string
	}
	Mounts []struct {
		Type, Name, Source, Destination string
		RW                              bool
	}
}

func (i *inspected) container(runtime Runtime) Container {
	c := Container{
		ID: ID(i.ID), Runtime: runtime, Image: i.Config.Image, Labels: i.Config.Labels,
		State: i.state(), ExitCode: i.State.ExitCode, OOMKilled: i.State.OOMKilled, PID: i.State.Pid,
		Created: known(i.Created), Started: known(i.State.StartedAt), Finished: known(i.State.FinishedAt),
		Log: i.log(runtime),
		Rootfs: Rootfs{
			Upper: i.GraphDriver.Data["UpperDir"], Lower: splitPaths(i.GraphDriver.Data["LowerDir"]), Path: i.GraphDriver.Data["MergedDir"],
		},
		Limits: Limits{
			MemoryBytes: max(0, i.HostConfig.Memory),
			CPUs:        float64(i.HostConfig.NanoCpus) / 1e9,
			Pids:        max(0, i.HostConfig.PidsLimit),
		},
	}
	if c.Limits.CPUs == 0 {
		c.Limits.CPUs = cpus(i.HostConfig.CPUQuota, i.HostConfig.CPUPeriod)
	}
	for _, m := range i.Mounts {
		c.Mounts = append(c.Mounts, Mount{Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, ReadOnly: !m.RW})
	}
	if c.Restarts = i.RestartCount; i.State.Health.Status != "none" {
		c.Health = i.State.Health.Status
	}
	c.Pod = podOf(c.Labels)
	c.Sandbox = c.Labels["io.kubernetes.docker.type"] == "podsandbox"
	c.Name = c.Label("fairlead.name", or(c.Pod.Container, or(strings.TrimPrefix(i.Name, "/"), i.ID)))
	return c
}

func (i *inspected) state() State {
	switch i.State.Status {
	case "paused":
		return Paused
	case "running", "restarting":
		if i.State.Pid == 0 {
			return Exited // between two attempts
		}
		return Running
	case "stopping", "removing", "stopped": // Podman's "stopped" is an exited one that is not yet cleaned up
		return Stopping
	case "created", "configured", "initialized":
		return Created
	}
	return Exited
}

// log tells the file and its format. Podman's json-file is another name of its k8s-file, which writes CRI's lines.
func (i *inspected) log(runtime Runtime) Log {
	l := Log{Driver: i.HostConfig.LogConfig.Type, Path: or(i.LogPath, i.HostConfig.LogConfig.Path)}
	switch {
	case l.Path == "":
	case runtime.kind() == "podman" && slices.Contains([]string{"k8s-file", "json-file"}, l.Driver):
		l.Format = CRI
	case runtime.kind() == "docker" && l.Driver == "json-file":
		l.Format = DockerJSON
		options := i.HostConfig.LogConfig.Config // max-file is 1 when it is not given (Docker's json-file driver)
		l.MaxBytes = bytesOf(options["max-size"])
		l.Truncates = options["max-size"] != "" && (options["max-file"] == "" || options["max-file"] == "1")
	default:
		l.Path = "" // not lines of text
	}
	return l
}

// bytesOf reads Docker's max-size: a number and a unit of thousands (k, kb, m, ...); 0 when it is none.
func bytesOf(size string) int64 {
	number := strings.TrimRight(strings.ToLower(size), " bkmgtpi")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 {
		return 0
	}
	if unit := strings.TrimLeft(strings.ToLower(size)[len(number):], " "); unit != "" {
		for range strings.IndexByte("bkmgtp", unit[0]) {
			n *= 1000
		}
	}
	return int64(n)
}

func (d *docker) path(p string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.api == "" {
		return p
	}
	return "/v" + d.api + p
}

// ask asks one question and reads the whole JSON answer into out.
func (d *docker) ask(ctx context.Context, path string, query url.Values, out any) error {
	resp, err := d.open(ctx, path, query)
	if err != nil {
		return err
	}
	err = json.NewDecoder(resp.Body).Decode(out)
	if err != nil {
		err = fmt.Errorf("read answer to %s: %w", path, err)
	}
	return errors.Join(err, resp.Body.Close())
}

func (d *docker) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "engine", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // what it says is for people; the status decides
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound && strings.Contains(path, "/containers/") {
		return nil, ErrGone
	}
	return nil, fmt.Errorf("%s: %s: %s", path, resp.Status, strings.TrimSpace(string(text)))
}
