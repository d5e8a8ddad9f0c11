package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pollEvery is how often a CRI runtime that tells no events is asked for its list.
const pollEvery = time.Second

// settling is when a container is looked at after containerd told that it changed: CRI hears of it by the same event
// as we do, and may answer with its old state at first.
var settling = []time.Duration{0, 100 * time.Millisecond, time.Second}

// criRuntime speaks the Kubernetes Container Runtime Interface: containerd's plugin or CRI-O.
type criRuntime struct {
	name   Runtime
	socket string
	conn   *grpc.ClientConn
	events *containerd // the containerd on the same socket, or nil

	mu   sync.Mutex
	memo map[Handle]Container // the verbose answer is 15 KB of JSON, and new only when the state is
}

// Name implements Source.
func (r *criRuntime) Name() Runtime { return r.name }

// Socket implements Source.
func (r *criRuntime) Socket() string { return r.socket }

func (r *criRuntime) client() cri.RuntimeServiceClient { return cri.NewRuntimeServiceClient(r.conn) }

// Ping implements Source.
func (r *criRuntime) Ping(ctx context.Context) error {
	_, err := r.client().Version(ctx, &cri.VersionRequest{})
	return err
}

// List implements Source. Only containers whose state is new are asked for one by one.
func (r *criRuntime) List(ctx context.Context) ([]Container, error) {
	brief, err := r.brief(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Container, 0, len(brief))
	for h, b := range brief {
		r.mu.Lock()
		c, ok := r.memo[h]
		r.mu.Unlock()
		if !ok || c.State != b.state {
			c, err = within(ctx, func(ctx context.Context) (Container, error) { return r.get(ctx, h, b.sandbox) })
		}
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", h, err)
		}
		out = append(out, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.memo, func(h Handle, _ Container) bool { _, ok := brief[h]; return !ok })
	return out, nil
}

type brief struct {
	state   State
	sandbox bool
}

// brief gives all containers and sandboxes with their states, by two questions.
func (r *criRuntime) brief(ctx context.Context) (map[Handle]brief, error) {
	containers, err := within(ctx, func(ctx context.Context) (*cri.ListContainersResponse, error) {
		return r.client().ListContainers(ctx, &cri.ListContainersRequest{})
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	sandboxes, err := within(ctx, func(ctx context.Context) (*cri.ListPodSandboxResponse, error) {
		return r.client().ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	out := make(map[Handle]brief, len(containers.Containers)+len(sandboxes.Items))
	for _, c := range containers.Containers {
		out[Handle(c.Id)] = brief{state: criState(c.State)}
	}
	for _, s := range sandboxes.Items {
		out[Handle(s.Id)] = brief{state: sandboxState(s.State), sandbox: true}
	}
	return out, nil
}

// Get implements Source.
func (r *criRuntime) Get(ctx context.Context, h Handle) (Container, error) {
	c, err := r.get(ctx, h, false)
	if errors.Is(err, ErrGone) {
		return r.get(ctx, h, true)
	}
	return c, err
}

func (r *criRuntime) get(ctx context.Context, h Handle, sandbox bool) (c Container, err error) {
	if sandbox {
		c, err = r.sandbox(ctx, h)
	} else {
		c, err = r.container(ctx, h)
	}
	if status.Code(err) == codes.NotFound {
		return Container{}, ErrGone
	}
	if err != nil {
		return Container{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memo == nil {
		r.memo = map[Handle]Container{}
	}
	r.memo[h] = c
	return c, nil
}

func (r *criRuntime) container(ctx context.Context, h Handle) (Container, error) {
	a, err := r.client().ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: string(h), Verbose: true})
	if err != nil {
		return Container{}, err
	}
	s := a.Status
	c := Container{
		ID: ID(s.Id), Runtime: r.name, Image: s.GetImage().GetImage(), Labels: s.Labels,
		State: criState(s.State), ExitCode: int(s.ExitCode), OOMKilled: s.Reason == "OOMKilled",
		Created: nanos(s.CreatedAt), Started: nanos(s.StartedAt), Finished: nanos(s.FinishedAt),
		Pod: podOf(s.Labels),
	}
	c.Name = c.Label("fairlead.name", or(s.GetMetadata().GetName(), s.Id))
	c.Pod.Container = or(c.Pod.Container, s.GetMetadata().GetName())
	if s.LogPath != "" {
		c.Log = Log{Path: s.LogPath, Format: CRI, Driver: "cri"}
	}
	for _, m := range s.Mounts {
		c.Mounts = append(c.Mounts, Mount{Type: "bind", Source: m.HostPath, Destination: m.ContainerPath, ReadOnly: m.Readonly})
	}
	return c, verbose(&c, a.Info)
}

func (r *criRuntime) sandbox(ctx context.Context, h Handle) (Container, error) {
	a, err := r.client().PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: string(h), Verbose: true})
	if err != nil {
		return Container{}, err
	}
	s := a.Status
	m := s.GetMetadata()
	c := Container{
		ID: ID(s.Id), Runtime: r.name, Labels: s.Labels, State: sandboxState(s.State), Created: nanos(s.CreatedAt), Sandbox: true,
		Pod: Pod{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUid()},
	}
	c.Name = c.Label("fairlead.name", or(m.GetName(), s.Id))
	return c, verbose(&c, a.Info)
}

// verbose reads the process and the limits from the part of the answer that each runtime words as it likes; containerd
// and CRI-O agree on this much.
func verbose(c *Container, info map[string]string) error {
	var v struct {
		PID         int `json:"pid"`
		RuntimeSpec ociSpec
	}
	if text := info["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return fmt.Errorf("read verbose status: %w", err)
		}
	}
	if c.Alive() {
		c.PID = v.PID
	}
	c.Limits = v.RuntimeSpec.limits()
	return nil
}

func criState(s cri.ContainerState) State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return Created
	case cri.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Running // also when it is unknown: doubt keeps
}

func sandboxState(s cri.PodSandboxState) State {
	if s == cri.PodSandboxState_SANDBOX_NOTREADY {
		return Exited
	}
	return Running
}

func nanos(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Watch implements Source: by CRI's own events where they are offered, else by those of the containerd behind it, else
// by asking once a second.
func (r *criRuntime) Watch(ctx context.Context, changed func(Handle)) error {
	r.conn.ResetConnectBackoff()
	switch err := r.watchEvents(ctx, changed); {
	case !errors.Is(err, errNoEvents):
		return err
	case r.events != nil:
		return r.watchContainerd(ctx, changed)
	}
	return r.poll(ctx, changed)
}

var errNoEvents = errors.New("the runtime offers no container events")

func (r *criRuntime) watchEvents(ctx context.Context, changed func(Handle)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.client().GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return err
	}
	if err := bounded(ctx, answerWithin, r.Ping); err != nil {
		return err
	}
	// The server does not confirm a subscription either.
	changed("")
	again := time.AfterFunc(settled, func() { changed("") })
	defer again.Stop()
	for heard := false; ; heard = true {
		e, err := stream.Recv()
		switch code := status.Code(err); {
		case err == nil:
			changed(Handle(e.ContainerId))
		case !heard && code != codes.Unavailable && code != codes.Canceled:
			return errNoEvents // not implemented, or switched off in CRI-O's configuration
		default:
			return err
		}
	}
}

func (r *criRuntime) watchContainerd(ctx context.Context, changed func(Handle)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return r.events.watch(ctx, changed, func(namespace, id string) {
		if namespace != "k8s.io" {
			return
		}
		for _, d := range settling {
			if d == 0 {
				changed(Handle(id))
				continue
			}
			time.AfterFunc(d, func() {
				if ctx.Err() == nil {
					changed(Handle(id))
				}
			})
		}
	})
}

func (r *criRuntime) poll(ctx context.Context, changed func(Handle)) error {
	before, err := r.brief(ctx)
	if err != nil {
		return err
	}
	changed("")
	for {
		sleep(ctx, pollEvery) // an ended ctx is the next question's error
		now, err := r.brief(ctx)
		if err != nil {
			return err
		}
		for h, b := range now {
			if was, had := before[h]; !had || was != b {
				changed(h)
			}
		}
		for h := range before {
			if _, has := now[h]; !has {
				changed(h)
			}
		}
		before = now
	}
}
