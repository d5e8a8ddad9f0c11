package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// settled is when a subscription whose begin the server does not confirm surely stands: one more List then.
const settled = time.Second

// containerd speaks containerd's own API, all namespaces at once.
type containerd struct {
	name   Runtime
	socket string
	conn   *grpc.ClientConn // shared with the CRI source on the same socket; lives as long as the agent

	mu   sync.Mutex
	memo map[Handle]fixed
}

// fixed is what changes only together with UpdatedAt and takes time to read: the specification is 10 KB of JSON.
type fixed struct {
	updated time.Time
	mounts  []Mount
	limits  Limits
	rootfs  Rootfs
}

func dialGRPC(path string) (*grpc.ClientConn, error) {
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = firstRetry, lastRetry
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: answerWithin}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)), // a list of thousands of containers is one message
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	return conn, nil
}

// Name implements Source.
func (c *containerd) Name() Runtime { return c.name }

// Socket implements Source.
func (c *containerd) Socket() string { return c.socket }

// Ping implements Source.
func (c *containerd) Ping(ctx context.Context) error {
	_, err := versionapi.NewVersionClient(c.conn).Version(ctx, &emptypb.Empty{})
	return err
}

// Watch implements Source.
func (c *containerd) Watch(ctx context.Context, changed func(Handle)) error {
	return c.watch(ctx, changed, func(namespace, id string) { changed(handleOf(namespace, id)) })
}

// watch subscribes to the events of all namespaces. The server does not confirm a subscription, so started is called
// when it has answered a question that came after it, and once more a moment later.
func (c *containerd) watch(ctx context.Context, started func(Handle), event func(namespace, id string)) error {
	c.conn.ResetConnectBackoff()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := eventsapi.NewEventsClient(c.conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: eventFilters()})
	if err != nil {
		return err
	}
	if err := bounded(ctx, answerWithin, c.Ping); err != nil {
		return err
	}
	started("")
	again := time.AfterFunc(settled, func() { started("") })
	defer again.Stop()
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		id, err := eventSubject(e)
		if err != nil {
			return err
		}
		if id != "" {
			event(e.Namespace, id)
		}
	}
}

// List implements Source.
func (c *containerd) List(ctx context.Context) ([]Container, error) {
	namespaces, err := within(ctx, func(ctx context.Context) (*namespacesapi.ListNamespacesResponse, error) {
		return namespacesapi.NewNamespacesClient(c.conn).List(ctx, &namespacesapi.ListNamespacesRequest{})
	})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []Container
	for _, ns := range namespaces.Namespaces {
		have, err := c.listNamespace(ctx, ns.Name)
		if err != nil {
			return nil, fmt.Errorf("list namespace %s: %w", ns.Name, err)
		}
		out = append(out, have...)
	}
	c.forget(out)
	return out, nil
}

func (c *containerd) listNamespace(ctx context.Context, ns string) ([]Container, error) {
	ctx = inNamespace(ctx, ns)
	have, err := within(ctx, c.records)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	tasks, err := within(ctx, func(ctx context.Context) (*tasksapi.ListTasksResponse, error) {
		return tasksapi.NewTasksClient(c.conn).List(ctx, &tasksapi.ListTasksRequest{})
	})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	byID := map[string]*task.Process{}
	for _, t := range tasks.Tasks {
		byID[t.ID] = t
	}
	out := make([]Container, 0, len(have))
	for _, r := range have {
		one, err := c.container(ctx, ns, r, byID[r.ID])
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (c *containerd) records(ctx context.Context) ([]*containersapi.Container, error) {
	stream, err := containersapi.NewContainersClient(c.conn).ListStream(ctx, &containersapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	var out []*containersapi.Container
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m.Container)
	}
}

// Get implements Source.
func (c *containerd) Get(ctx context.Context, h Handle) (Container, error) {
	ns, id, _ := strings.Cut(string(h), "/")
	ctx = inNamespace(ctx, ns)
	r, err := containersapi.NewContainersClient(c.conn).Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if status.Code(err) == codes.NotFound {
		return Container{}, ErrGone
	}
	if err != nil {
		return Container{}, err
	}
	t, err := tasksapi.NewTasksClient(c.conn).Get(ctx, &tasksapi.GetRequest{ContainerID: id})
	if err != nil && status.Code(err) != codes.NotFound {
		return Container{}, fmt.Errorf("get task: %w", err)
	}
	return c.container(ctx, ns, r.Container, t.GetProcess())
}

// container puts together what the record, the specification, the snapshotter and the task say.
func (c *containerd) container(ctx context.Context, ns string, r *containersapi.Container, t *task.Process) (Container, error) {
	f, err := c.fixedOf(ctx, ns, r)
	if err != nil {
		return Container{}, err
	}
	out := Container{
		ID: ID(r.ID), Runtime: c.name, Namespace: ns, Image: r.Image, Labels: r.Labels,
		Created: r.CreatedAt.AsTime(), Pod: podOf(r.Labels), Sandbox: r.Labels["io.cri-containerd.kind"] == "sandbox",
		Mounts: named(f.mounts, r.Labels["nerdctl/mounts"]), Limits: f.limits, Rootfs: f.rootfs, State: Created,
	}
	out.Name = out.Label("fairlead.name", out.Label("nerdctl/name", or(out.Pod.Container, r.ID)))
	if t != nil {
		out.State = taskState(t.Status)
		out.Log = taskLog(t.Stdout, ns, r.ID)
		if out.State == Stopping {
			out.ExitCode, out.Finished = int(t.ExitStatus), known(t.ExitedAt.AsTime())
		} else {
			out.PID = int(t.Pid)
		}
	}
	return out, nil
}

func taskState(s task.Status) State {
	switch s {
	case task.Status_CREATED:
		return Created
	case task.Status_PAUSED, task.Status_PAUSING:
		return Paused
	case task.Status_STOPPED: // it has ended; its task, cgroup and log are there until somebody deletes the task
		return Stopping
	}
	return Running // also when the shim does not say: doubt keeps
}

// taskLog reads where a task's stdout goes. nerdctl gives itself as a binary with its data directory as the argument.
func taskLog(stdout, ns, id string) Log {
	u, err := url.Parse(stdout)
	switch {
	case err != nil || stdout == "":
		return Log{Driver: "none"}
	case u.Scheme == "file":
		return Log{Path: u.Path, Format: Plain, Driver: "file"}
	case u.Scheme == "binary":
		if data := u.Query().Get("_NERDCTL_INTERNAL_LOGGING"); data != "" {
			return Log{Path: filepath.Join(data, "containers", ns, id, id+"-json.log"), Format: DockerJSON, Driver: "json-file"}
		}
		return Log{Driver: "binary"}
	case u.Scheme == "" || u.Scheme == "fifo":
		return Log{Driver: "fifo"}
	}
	return Log{Driver: u.Scheme}
}

// named puts nerdctl's volume names, from its label, on the mounts.
func named(mounts []Mount, label string) []Mount {
	var volumes []struct{ Type, Name, Destination string }
	if label == "" || json.Unmarshal([]byte(label), &volumes) != nil {
		return mounts // somebody else's label: the mounts are binds all the same
	}
	out := append([]Mount(nil), mounts...)
	for i := range out {
		for _, v := range volumes {
			if v.Type == "volume" && v.Destination == out[i].Destination {
				out[i].Type, out[i].Name = "volume", v.Name
			}
		}
	}
	return out
}

func (c *containerd) fixedOf(ctx context.Context, ns string, r *containersapi.Container) (fixed, error) {
	h := handleOf(ns, r.ID)
	c.mu.Lock()
	f, ok := c.memo[h]
	c.mu.Unlock()
	if ok && f.updated.Equal(r.UpdatedAt.AsTime()) {
		return f, nil
	}
	spec, err := parseSpec(r.Spec.GetValue())
	if err != nil {
		return fixed{}, fmt.Errorf("container %s: %w", r.ID, err)
	}
	f = fixed{updated: r.UpdatedAt.AsTime(), mounts: spec.mounts(), limits: spec.limits()}
	if r.SnapshotKey != "" {
		m, err := within(ctx, func(ctx context.Context) (*snapshotsapi.MountsResponse, error) {
			return snapshotsapi.NewSnapshotsClient(c.conn).Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: r.Snapshotter, Key: r.SnapshotKey})
		})
		switch {
		case err == nil:
			f.rootfs = rootfsOf(m.Mounts)
		case status.Code(err) == codes.Unavailable || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
			return fixed{}, fmt.Errorf("get mounts of %s: %w", r.ID, err)
		default:
			return f, nil // no such snapshot, or not yet: the container is there without a root; not remembered
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.memo == nil {
		c.memo = map[Handle]fixed{}
	}
	c.memo[h] = f
	return f, nil
}

// forget drops what is remembered of containers that are not in have.
func (c *containerd) forget(have []Container) {
	in := make(map[Handle]bool, len(have))
	for i := range have {
		in[have[i].handle()] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.memo, func(h Handle, _ fixed) bool { return !in[h] })
}

func rootfsOf(mounts []*types.Mount) Rootfs {
	var r Rootfs
	for _, m := range mounts {
		if m.Type == "bind" { // one layer, or a snapshotter of plain directories
			r.Path = m.Source
		}
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				r.Upper = v
			}
			if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				r.Lower = splitPaths(v)
			}
		}
	}
	return r
}

func inNamespace(ctx context.Context, ns string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", ns)
}
