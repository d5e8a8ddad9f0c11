package cni

import (
	"encoding/json"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzConfig feeds a configuration and CNI_ARGS through everything that reads them. What is accepted makes a result
// that is JSON again.
func FuzzConfig(f *testing.F) {
	for _, more := range []string{
		``, `"cniVersion":"0.3.1"`, `"owner":"one","network":"green"`, `"runtimeConfig":null`, `"args":{"cni":null}`,
		`"runtimeConfig":{"ips":["10.42.1.9/16","fd42::9"],"mac":"02:00:00:00:00:09","portMappings":[{"hostPort":1,"containerPort":65535,"protocol":"sctp","hostIP":"::1"}]}`,
		`"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"fairlead.ips":",","fairlead.mac":"x"}}`,
		`"prevResult":{"cniVersion":"1.0.0","interfaces":[null],"ips":[{"address":"10.0.0.1/8","interface":7}],"routes":[null]}`,
		`"prevResult":{"cniVersion":"1.0.0","Interfaces":[null]}`,
		`"prevResult":{"cniVersion":"9.9.9"}`, `"prevResult":{}`, `"prevResult":[]`,
		`"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},null]`, `"cni.dev/attachments":null`,
	} {
		f.Add(confText(more), "IgnoreUnknown=1;IP=10.42.1.2;MAC=02:00:00:00:00:01")
	}
	f.Add([]byte(`{"cniVersion":`), ";;=;IP=,")
	f.Fuzz(func(t *testing.T, text []byte, args string) {
		conf, fault := parseConfig(text)
		if fault != nil {
			return
		}
		_, _ = conf.valid()
		if req, fault := conf.request(args); fault == nil {
			if req.Addr.IsValid() && !req.Addr.Is4() || req.Addr6.IsValid() && !req.Addr6.Is6() || req.MAC[0]&1 == 1 {
				t.Errorf("%s and %q became %+v", text, args, req)
			}
		}
		prev, err := conf.previous()
		if err != nil {
			return
		}
		_, _ = said(prev, "eth0"), contradictions(prev, attachment())
		res, err := conf.result(attachment(), prev)
		if err == nil && !json.Valid(res) {
			t.Errorf("result of %s is no JSON: %s", text, res)
		}
	})
}

// FuzzRequest sends bytes to the reader of the socket. Whatever comes, it answers, and no descriptor stays open.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"command":"ADD","container_id":"a","ifname":"eth0","config":{}}`+"\n"), true)
	f.Add([]byte(`{"version":1,"command":"GC","config":null}`+"\n{"), false)
	f.Add([]byte("\n\n"), true)
	f.Add([]byte(`{"version":`), true)
	f.Fuzz(func(t *testing.T, sent []byte, rights bool) {
		ours, theirs := pair(t)
		defer ours.Close()
		var oob []byte
		if rights {
			// Two, of which the second must not stay.
			oob = unix.UnixRights(int(os.Stdin.Fd()), int(os.Stdin.Fd()))
		}
		if len(sent) > 0 {
			if _, _, err := theirs.WriteMsgUnix(sent[:1], oob, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := theirs.Write(sent[1:]); err != nil {
				t.Fatal(err)
			}
		}
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		_ = ours.SetDeadline(time.Now().Add(time.Minute))
		before := descriptors(t)
		c, err := receive(ours)
		if err == nil {
			c.close()
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors are open, %d were, after %q", after, before, sent)
		}
	})
}

func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	// Nobody reads while the other end writes.
	if err := ends[1].SetWriteBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	_ = ends[1].SetDeadline(time.Now().Add(time.Minute))
	return ends[0], ends[1]
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
