//go:build kernel

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The test binary is its own child: as another user, it asks the socket named here and prints what it got.
const childSocket = "FAIRLEAD_TEST_API_SOCKET"

func TestMain(m *testing.M) {
	socket := os.Getenv(childSocket)
	if socket == "" {
		os.Exit(m.Run())
	}
	var answer string
	err := NewClient(socket).Get(context.Background(), "/v1/status", &answer)
	var e *Error
	switch {
	case errors.As(err, &e):
		fmt.Println(e.Status, e.Message)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(answer)
	}
	os.Exit(0)
}

func TestOtherUsersAreRefusedWithAReason(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	socket := socketIn(t)
	dir := filepath.Dir(socket)
	self := filepath.Join(dir, "child") // go test's own directory is closed to others
	copyFile(t, "/proc/self/exe", self)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody, daemon = 65534, 1 // of every Debian; the group's name is looked up in /etc/group
	s := New(socket, "daemon", quiet())
	s.Handle("GET /v1/status", func(*http.Request) (any, error) { return "let in", nil })
	serving(t, s.Run)

	var many []uint32
	for g := range uint32(200) {
		many = append(many, 5000+g)
	}
	many = append(many, daemon)
	ask := func(cred syscall.Credential) (int, string) {
		child := exec.Command(self)
		child.Env = []string{childSocket + "=" + socket}
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &cred}
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return child.Process.Pid, strings.TrimSpace(string(out))
	}
	for name, cred := range map[string]syscall.Credential{
		"root": {}, "the group as first group": {Uid: nobody, Gid: daemon}, "the group among others": {Uid: nobody, Gid: nobody, Groups: []uint32{7, daemon}},
		"the group among very many": {Uid: nobody, Gid: nobody, Groups: many},
	} {
		if _, got := ask(cred); got != "let in" {
			t.Errorf("%s: %s", name, got)
		}
	}
	outsider := syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7}}
	if _, got := ask(outsider); got != "not allowed to talk to the fairlead agent on "+socket+": only root and members of group fairlead may" {
		t.Errorf("outsider before the socket: %s", got)
	}
	if err := os.Chmod(socket, 0o666); err != nil { // somebody opened it; the credentials still hold
		t.Fatal(err)
	}
	pid, got := ask(outsider)
	if want := fmt.Sprintf("403 user 65534 (pid %d) may not use the agent: only root and members of group daemon may", pid); got != want {
		t.Errorf("outsider through an open socket:\n got %s\nwant %s", got, want)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}
