package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/volumes"
)

// answering serves one route of the operator API and gives its socket.
func answering(t *testing.T, pattern string, f func(*http.Request) (any, error)) string {
	t.Helper()
	socket := t.TempDir() + "/s"
	server := api.New(socket, "", slog.New(slog.DiscardHandler))
	server.Handle(pattern, f)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- server.Run(agent.WithReady(ctx, func() { close(ready) })) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-ready
	return socket
}

func TestStatusShowsTheLastBackupsAndSaysWhichFailed(t *testing.T) {
	s := statusAnswer{Node: "web1", Wrong: []string{}, Backups: []volumes.LastBackup{
		{Volume: "docker/data", Repository: "local", ID: "0123", At: time.Now().Add(-2 * time.Hour)},
		{Volume: "odd", Repository: "far", At: time.Now().Add(-3 * time.Minute), Error: "no space left on device"},
	}}
	s.judge()
	if len(s.Wrong) != 1 || !strings.HasPrefix(s.Wrong[0], "the last backup of odd failed at ") || !strings.HasSuffix(s.Wrong[0], ": no space left on device") {
		t.Errorf("wrong is %q", s.Wrong)
	}
	socket := answering(t, "GET /v1/status", func(*http.Request) (any, error) { return s, nil })
	out, said, code := fairlead(t, "status", "--socket", socket)
	if fields := strings.Join(strings.Fields(out), " "); code != 1 || said != "" || !strings.Contains(fields, "! the last backup of odd failed") ||
		!regexp.MustCompile(`VOLUME LAST-BACKUP AGE REPOSITORY docker/data ok 2h\S+ local odd failed 3m\S+ far`).MatchString(fields) {
		t.Errorf("exit %d, said %q, printed\n%s", code, said, out)
	}
	out, _, code = fairlead(t, "status", "--json", "--socket", socket)
	var got statusAnswer
	if err := json.NewDecoder(bytes.NewBufferString(out)).Decode(&got); err != nil || code != 1 || len(got.Backups) != 2 || got.Backups[1].Error == "" {
		t.Errorf("exit %d (%v), printed\n%s", code, err, out)
	}
}
