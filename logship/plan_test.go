package logship

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
)

func TestFilesInsideAreFoundThroughTheNearestMountOrTheUpperDirectory(t *testing.T) {
	t.Parallel()
	mounts := []container.Mount{
		{Type: "volume", Source: "/vol/data", Destination: "/data"},
		{Type: "bind", Source: "/srv/deep", Destination: "/data/deep"},
		{Type: "bind", Source: "/srv/one.log", Destination: "/one.log"},
		{Type: "tmpfs", Destination: "/tmp"},
	}
	for _, tc := range []struct{ label, upper, want string }{
		{"/var/log/*.log", "/u", "/u /var/log/*.log as /var/log/x.log"},
		{"/data/a/*.log", "/u", "/vol/data /a/*.log as /data/x.log"},
		{"/data/deep/*.log", "/u", "/srv/deep /*.log as /data/deep/x.log"},
		{"/data/../var/x", "/u", "/u /var/x as /x.log"},
		{"/one.log", "", "/srv/ /one.log as /one.log"},
		{"/datax/*.log", "", "unreachable"},
		{"/tmp/*.log", "/u", "unreachable"},
		{"relative, ,", "/u", "unreachable"},
	} {
		c := &container.Container{Labels: map[string]string{LabelLogs: tc.label}, Mounts: mounts, Rootfs: container.Rootfs{Upper: tc.upper}}
		found, _, unreachable := insides(c, nil)
		got := "unreachable"
		if len(found) == 1 && len(unreachable) == 0 {
			match := "/x.log"
			if slices.Contains([]string{"/one.log"}, tc.label) {
				match = "/one.log"
			} else if tc.label == "/var/log/*.log" {
				match = "/var/log/x.log"
			}
			got = fmt.Sprintf("%s %s as %s", found[0].root, found[0].pattern, found[0].name(match))
		}
		if got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.label, got, tc.want)
		}
	}
}
