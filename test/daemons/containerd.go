package daemons

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerdDaemon is a running containerd.
type ContainerdDaemon struct {
	*Process
	Address, Root, State string // as the daemon sees them
}

// Containerd starts containerd and returns when it answers. Debian's 1.6 and later ones understand the configuration.
func Containerd(ctx context.Context, opts Options) (*ContainerdDaemon, error) {
	d := &ContainerdDaemon{
		Address: or(opts.Address, filepath.Join(opts.Dir, "containerd.sock")),
		Root:    or(opts.Root, filepath.Join(opts.Dir, "root")),
		State:   or(opts.State, filepath.Join(opts.Dir, "state")),
	}
	config := filepath.Join(opts.Dir, "containerd.toml")
	if err := os.WriteFile(config, []byte(d.config(opts)), 0o644); err != nil {
		return nil, fmt.Errorf("configure containerd: %w", err)
	}
	var err error
	if d.Process, err = start(opts, "containerd", "containerd", "--config", config); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.answers); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

func (d *ContainerdDaemon) config(opts Options) string {
	var disabled []string
	if !opts.CRI {
		disabled = append(disabled, `"io.containerd.grpc.v1.cri"`)
	}
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = [%s]
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_tcp_service = true
  # Without CAP_SYS_RESOURCE nobody can lower an OOM score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = %q
`, d.Root, d.State, strings.Join(disabled, ", "), d.Address, d.Address+".ttrpc", filepath.Join(opts.Dir, "opt"),
		or(opts.SandboxImage, BusyboxName), filepath.Join(opts.Dir, "cni"))
}

// Start brings containerd back after Kill, in the same place.
func (d *ContainerdDaemon) Start(ctx context.Context) error {
	if err := d.launch(); err != nil {
		return fmt.Errorf("start containerd again: %w", err)
	}
	return d.await(ctx, d.answers)
}

// answers asks for the version, and with CRI also for the state of that plugin, which is ready later.
func (d *ContainerdDaemon) answers(ctx context.Context) error {
	conn, err := d.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := version.NewVersionClient(conn).Version(ctx, &emptypb.Empty{}); err != nil || !d.opts.CRI {
		return err
	}
	_, err = cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{})
	return err
}

// Dial opens a connection to the daemon for its API. The caller closes it.
func (d *ContainerdDaemon) Dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+d.Seen(d.Address), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Ctr runs ctr in a containerd namespace and gives its output.
func (d *ContainerdDaemon) Ctr(ctx context.Context, namespace string, args ...string) (string, error) {
	return d.Run(ctx, append([]string{"ctr", "--address", d.Address, "--namespace", namespace}, args...)...)
}

// Stop removes all tasks, ends containerd, and clears what is left of shims, containers, cgroups and mounts. Images and
// other files stay in Root and State. It may be called twice, and after Kill.
func (d *ContainerdDaemon) Stop(ctx context.Context) error {
	if d.Process == nil {
		return nil
	}
	var err error
	if d.Running() && d.mnt != nil {
		err = d.removeTasks(ctx)
	}
	return errors.Join(err, d.end(ctx), d.clear(ctx, d.Address, d.Root, d.State))
}

// removeTasks lets containerd end its containers, so that runc removes their cgroups and records.
func (d *ContainerdDaemon) removeTasks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	namespaces, err := d.Ctr(ctx, "default", "namespaces", "ls", "-q")
	if err != nil {
		return fmt.Errorf("remove tasks: %w", err)
	}
	for ns := range strings.FieldsSeq(namespaces) {
		tasks, err := d.Ctr(ctx, ns, "tasks", "ls", "-q")
		if err != nil {
			return fmt.Errorf("remove tasks: %w", err)
		}
		if ids := strings.Fields(tasks); len(ids) > 0 {
			// Containers may also end or be removed by others just now; clear looks at what really is left.
			_, _ = d.Ctr(ctx, ns, append([]string{"tasks", "rm", "--force"}, ids...)...)
		}
	}
	return nil
}
