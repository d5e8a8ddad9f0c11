package plugin

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
)

// run calls the plugin and gives its exit code and what it printed.
func run(command, stdin string, more ...string) (int, string) {
	env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self/ns/net"}
	for _, m := range more {
		k, v, _ := strings.Cut(m, "=")
		env[k] = v
	}
	var out bytes.Buffer
	code := Run(Call{Env: func(k string) string { return env[k] }, Stdin: strings.NewReader(stdin), Stdout: &out})
	return code, out.String()
}

// conf is a configuration with a socket in a directory of its own.
func conf(t *testing.T) (text, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl-") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "run", "cni.sock")
	return `{"cniVersion":"1.1.0","name":"blue","type":"fairlead-cni","socket":"` + socket + `"}`, socket
}

func TestWithoutTheAgentEachCommandSaysWhatTheSpecHasForIt(t *testing.T) {
	t.Parallel()
	text, socket := conf(t)
	for command, want := range map[string]wire.Code{"ADD": 11, "CHECK": 11, "GC": 11, "STATUS": 50} {
		code, out := run(command, text)
		var e struct {
			wire.Error
			CNIVersion string
		}
		if err := json.Unmarshal([]byte(out), &e); err != nil || code == 0 || e.Code != want || e.CNIVersion != "1.1.0" || !strings.Contains(e.Msg, socket) {
			t.Errorf("%s: exit %d, %s (%v)", command, code, out, err)
		}
	}
	if code, out := run("DEL", text); code != 0 || out != "" {
		t.Errorf("DEL: exit %d, %s", code, out)
	}
	if kept, err := wire.Spooled(socket); err != nil || len(kept) != 1 {
		t.Errorf("spooled: %q (%v)", kept, err)
	}
	if code, out := run("VERSION", `{"cniVersion":"1.0.0"}`); code != 0 || out != `{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`+"\n" {
		t.Errorf("VERSION: exit %d, %s", code, out)
	}
}

func TestTheWholeCallReachesTheAgentAndItsAnswerTheRuntime(t *testing.T) {
	t.Parallel()
	text, socket := conf(t)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan wire.Request, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		var req wire.Request
		_ = json.NewDecoder(c).Decode(&req) // the test sees what it is
		got <- req
		_, _ = c.Write([]byte(`{"error":{"code":7,"msg":"no","details":"why"}}` + "\n"))
	}()
	code, out := run("ADD", text, "CNI_ARGS=IP=10.42.1.9")
	req := <-got
	if req.Command != "ADD" || req.ContainerID != "a" || req.IfName != "eth0" || req.NetNS != "/proc/self/ns/net" || req.Args != "IP=10.42.1.9" || string(req.Config) != text {
		t.Errorf("the agent got %+v", req)
	}
	if code != 1 || out != `{"cniVersion":"1.1.0","code":7,"msg":"no","details":"why"}`+"\n" {
		t.Errorf("exit %d, %s", code, out)
	}
}

func TestADelThatTheStartingAgentKeepsStaysInTheSpoolAndOneThatItRefusesFails(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int{`{}`: 0, `{"error":{"code":100,"msg":"no"}}`: 1} {
		text, socket := conf(t)
		if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			// The first call meets an agent that stops, the second one that is not ready.
			if c, err := l.AcceptUnix(); err == nil {
				_ = c.Close()
			}
			if c, err := l.AcceptUnix(); err == nil {
				_ = json.NewDecoder(c).Decode(&wire.Request{})
				_, _ = c.Write([]byte(answer + "\n"))
				_ = c.Close()
			}
		}()
		if code, out := run("DEL", text); code != want {
			t.Errorf("answered %s: exit %d, %s", answer, code, out)
		}
		if kept, err := wire.Spooled(socket); err != nil || len(kept) != 1 {
			t.Errorf("answered %s: spooled: %q (%v)", answer, kept, err)
		}
	}
}

func TestACallThatCannotBeUnderstoodIsRefusedBeforeTheAgentIsAsked(t *testing.T) {
	t.Parallel()
	text, _ := conf(t)
	for _, c := range []struct {
		command, stdin, env, want string
	}{
		{"UPDATE", text, "", `"code":4,"msg":"CNI_COMMAND: expected ADD, DEL, CHECK, STATUS, GC or VERSION, found \"UPDATE\""`},
		{"ADD", text, "CNI_NETNS=", `"code":4,"msg":"CNI_NETNS: required by ADD, but it is empty"`},
		{"DEL", text, "CNI_CONTAINERID=", `"code":4,"msg":"CNI_CONTAINERID: required by DEL`},
		{"ADD", `{"cniVersion":`, "", `"code":6`},
		{"GC", `{"x":"` + strings.Repeat("x", wire.MaxMessage) + `"}`, "", `"code":5`},
	} {
		code, out := run(c.command, c.stdin, c.env)
		if code == 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, %s, want %s", c.command, code, out, c.want)
		}
	}
}

// FuzzStdin reads what a runtime may send. Accepted is only what can go on the wire.
func FuzzStdin(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `[]`, `{"cniVersion":"1.1.0","name":"blue","socket":"/run/x"}`, `{"cniVersion":7}`, `{"socket":null}`, `{"cniVersion":"1.0.0"}{`, "\xff"} {
		f.Add("ADD", []byte(seed), "a", "eth0", "IP=1")
		f.Add("GC", []byte(seed), "", "", "")
	}
	f.Fuzz(func(t *testing.T, command string, stdin []byte, id, ifName, args string) {
		env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": id, "CNI_IFNAME": ifName, "CNI_NETNS": "/x", "CNI_ARGS": args}
		c := Call{Env: func(k string) string { return env[k] }, Stdin: bytes.NewReader(stdin), Stdout: &bytes.Buffer{}}
		req, _, err := c.request()
		if err != nil {
			if c.fail("", err) == 0 || !json.Valid(c.Stdout.(*bytes.Buffer).Bytes()) {
				t.Errorf("%v became %s", err, c.Stdout)
			}
			return
		}
		line, err := wire.Encode(req)
		if err != nil {
			return // too long
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("%q goes over several lines", line)
		}
		var back wire.Request
		if err := json.Unmarshal(line, &back); err != nil || back.Command != command {
			t.Errorf("%q comes back as %+v (%v)", line, back, err)
		}
	})
}
