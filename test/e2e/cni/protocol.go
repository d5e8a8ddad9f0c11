package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

var protocol = []Case{
	{Name: "version", Says: "VERSION lists 0.3.1, 0.4.0, 1.0.0 and 1.1.0 and repeats what it was asked in", Run: versions},
	{Name: "result-versions", Says: "a result has the version of its configuration, whichever that is", Run: resultVersions},
	{Name: "errors", Says: "errors are objects on standard output with the spec's codes 1, 4 and 6", Run: errorObjects},
	{Name: "status", Says: "STATUS is silent when an ADD would succeed", Run: statusWell},
	{Name: "status-down", Says: "STATUS answers code 50 or 51 while the daemon is down", Daemon: true, Run: statusDown},
	{Name: "add-down", Says: "ADD fails and leaves nothing half done while the daemon is down", Daemon: true, Run: addDown},
	{Name: "gc", Says: "GC removes what is not in the list, and nothing else", Run: gc},
	{Name: "gc-others", Says: "GC of one network leaves another network's attachments alone", Run: gcOthers},
	{Name: "previous", Says: "the result holds prevResult, with the plugin's own behind it", Run: previous},
}

func versions(ctx context.Context, w *World) error {
	code, out, err := w.raw(ctx, `{"cniVersion":"1.0.0"}`, "CNI_COMMAND=VERSION")
	if err != nil {
		return err
	}
	var info struct {
		CNIVersion        string
		SupportedVersions []string
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil || code != 0 {
		return fmt.Errorf("exit %d, %s: %w", code, out, err)
	}
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", Newest} {
		if !slices.Contains(info.SupportedVersions, v) {
			return fmt.Errorf("%s is not among the supported versions %v", v, info.SupportedVersions)
		}
	}
	if info.CNIVersion != "1.0.0" {
		return fmt.Errorf("asked in 1.0.0, it answers in %q", info.CNIVersion)
	}
	return nil
}

func resultVersions(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", Newest} {
		c := To(b)
		c.Version = v
		list, err := w.list(c)
		if err != nil {
			return err
		}
		res, err := w.libcni(c).AddNetworkList(ctx, list, c.runtime())
		if err != nil {
			return fmt.Errorf("%s: %w", v, err)
		}
		if res.Version() != v {
			return fmt.Errorf("asked in %s, the result has version %s", v, res.Version())
		}
		if err := w.Del(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", v, err)
		}
	}
	return nil
}

func errorObjects(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	good, err := w.single("")
	if err != nil {
		return err
	}
	env := func(command string) []string {
		return []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=a", "CNI_IFNAME=eth0", "CNI_NETNS=" + b.Path}
	}
	for _, c := range []struct {
		what, stdin string
		env         []string
		code        uint
	}{
		{"a version nobody knows", strings.Replace(good, Newest, "9.9.9", 1), env("ADD"), types.ErrIncompatibleCNIVersion},
		{"a configuration that is no JSON", `{"cniVersion":`, env("ADD"), types.ErrDecodingFailure},
		{"an ADD without CNI_NETNS", good, append(env("ADD"), "CNI_NETNS="), types.ErrInvalidEnvironmentVariables},
		{"an unknown command", good, env("FROB"), types.ErrInvalidEnvironmentVariables},
	} {
		code, out, err := w.raw(ctx, c.stdin, c.env...)
		if err != nil {
			return err
		}
		var e types.Error
		if err := json.Unmarshal([]byte(out), &e); err != nil || code == 0 || e.Code != c.code || e.Msg == "" {
			return fmt.Errorf("%s: exit %d, want code %d and a message, got %q", c.what, code, c.code, out)
		}
	}
	return nil
}

func statusWell(ctx context.Context, w *World) error {
	list, err := w.list(Call{})
	if err != nil {
		return err
	}
	return w.libcni(Call{}).GetStatusNetworkList(ctx, list)
}

func statusDown(ctx context.Context, w *World) error {
	if err := w.crash(); err != nil {
		return err
	}
	var e *types.Error
	if err := statusWell(ctx, w); !errors.As(err, &e) || e.Code != types.ErrPluginNotAvailable && e.Code != types.ErrLimitedConnectivity {
		return fmt.Errorf("STATUS says: %s", said(err))
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	return statusWell(ctx, w)
}

func addDown(ctx context.Context, w *World) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	if err := w.crash(); err != nil {
		return err
	}
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	if _, err := w.Add(ctx, To(b)); err == nil {
		return errors.New("ADD succeeds without the daemon")
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := w.Same(before, 5*time.Second); err != nil {
		return err
	}
	if links, err := b.Sh("ip -o link | grep -v ' lo:' || true"); err != nil || hasInterface(links, "eth0") {
		return fmt.Errorf("the container has %s (%s)", links, said(err))
	}
	return nil
}

// collect calls GC with a list of its own, and without libcni's own DELs of what its cache knows.
func (w *World) collect(ctx context.Context, c Call, valid ...*Box) error {
	list, err := w.list(c)
	if err != nil {
		return err
	}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, b := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: b.ID, IfName: "eth0"})
	}
	clean := libcni.NewCNIConfigWithCacheDir(w.Path, w.Dir+"/no-cache", &executor{w: w})
	if err := clean.GCNetworkList(ctx, list, args); err != nil {
		return fmt.Errorf("GC: %w", err)
	}
	return nil
}

func gc(ctx context.Context, w *World) error {
	empty, err := w.before(ctx)
	if err != nil {
		return err
	}
	kept, err := w.Box("kept")
	if err != nil {
		return err
	}
	res, err := w.Add(ctx, To(kept))
	if err != nil {
		return err
	}
	before, err := w.Calm()
	if err != nil {
		return err
	}
	stale, err := w.Box("stale")
	if err != nil {
		return err
	}
	if _, err := w.Add(ctx, To(stale)); err != nil {
		return err
	}
	addr, err := addressOf(res)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		what  string
		valid []*Box
		want  string
	}{{"with one in the list", []*Box{kept}, before}, {"with an empty list", nil, empty}} {
		if err := w.collect(ctx, Call{}, step.valid...); err != nil {
			return err
		}
		if err := w.Same(step.want, 5*time.Second); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		if len(step.valid) > 0 {
			if err := w.reaches(addr); err != nil {
				return fmt.Errorf("the valid one: %w", err)
			}
		}
	}
	return nil
}

func gcOthers(ctx context.Context, w *World) error {
	kept, err := w.Box("kept")
	if err != nil {
		return err
	}
	res, err := w.Add(ctx, To(kept))
	if err != nil {
		return err
	}
	addr, err := addressOf(res)
	if err != nil {
		return err
	}
	list, err := w.list(Call{})
	if err != nil {
		return err
	}
	text, err := w.single(`"cni.dev/valid-attachments":[],"cni.dev/attachments":[],`)
	if err != nil {
		return err
	}
	// Another network may be unknown to the plugin: that it says so is no fault here.
	if _, _, err := w.raw(ctx, strings.Replace(text, `"name":"`+list.Name+`"`, `"name":"another"`, 1), "CNI_COMMAND=GC"); err != nil {
		return err
	}
	return w.reaches(addr)
}

func previous(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	text, err := w.single(fmt.Sprintf(`"prevResult":{"cniVersion":%q,"interfaces":[{"name":"net9","sandbox":%q}],"ips":[{"address":"198.51.100.9/24","interface":0}],"routes":[{"dst":"198.51.100.0/24"}],"dns":{"domain":"example.org"}},`, Newest, b.Path))
	if err != nil {
		return err
	}
	code, out, err := w.raw(ctx, text, "CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_IFNAME=eth0", "CNI_NETNS="+b.Path)
	if err != nil {
		return err
	}
	var res struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct {
			Address   string
			Interface *int
		}
		Routes []struct{ Dst string }
		DNS    struct{ Domain string }
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil || code != 0 {
		return fmt.Errorf("exit %d, %s (%s)", code, out, said(err))
	}
	switch {
	case len(res.Interfaces) == 0 || res.Interfaces[0].Name != "net9", len(res.IPs) == 0 || res.IPs[0].Address != "198.51.100.9/24",
		len(res.Routes) == 0 || res.Routes[0].Dst != "198.51.100.0/24", res.DNS.Domain != "example.org":
		return fmt.Errorf("prevResult is not what the result begins with: %s", out)
	case len(res.IPs) < 2 || res.IPs[1].Interface == nil || *res.IPs[1].Interface >= len(res.Interfaces) || res.Interfaces[*res.IPs[1].Interface].Name != "eth0":
		return fmt.Errorf("the plugin's own address does not follow, or not on its interface: %s", out)
	}
	return nil
}
