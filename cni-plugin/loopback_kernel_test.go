//go:build kernel

package plugin

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoopbackIsSetUpWithoutAnAgent(t *testing.T) {
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // the thread keeps the namespace, and ends
		var f *os.File
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		} else if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			t.Error(err)
		}
		made <- f
	}()
	ns := <-made
	if ns == nil {
		return
	}
	defer ns.Close()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	run := func(command, more string) (int, string) {
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_NETNS": path, "CNI_IFNAME": "lo"}
		var out bytes.Buffer
		code := Run(Call{Env: func(k string) string { return env[k] }, Stdout: &out,
			Stdin: strings.NewReader(`{"cniVersion":"0.4.0","name":"lo","type":"loopback","socket":"/nonexistent"` + more + `}`)})
		return code, out.String()
	}
	if code, out := run("CHECK", ""); code == 0 || !strings.Contains(out, "is down") {
		t.Errorf("CHECK before ADD: %d %s", code, out)
	}
	if code, out := run("ADD", ""); code != 0 || !strings.Contains(out, `"127.0.0.1/8"`) || !strings.Contains(out, `"version":"4"`) {
		t.Errorf("ADD: %d %s", code, out)
	}
	if code, out := run("CHECK", ""); code != 0 {
		t.Errorf("CHECK after ADD: %d %s", code, out)
	}
	if _, out := run("ADD", `,"prevResult":{"cniVersion":"0.4.0","ips":[]}`); !strings.Contains(out, `{"cniVersion":"0.4.0","ips":[]}`) {
		t.Errorf("ADD behind another plugin: %s", out)
	}
	if code, out := run("DEL", ""); code != 0 {
		t.Errorf("DEL: %d %s", code, out)
	}
}
