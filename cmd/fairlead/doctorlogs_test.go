package main

import (
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship"
)

func TestDoctorNamesLogsThatAreEmptiedInPlace(t *testing.T) {
	if f := examineLogs([]container.Container{{Name: "db"}}, []logship.StreamStatus{{Path: "/var/log/app.log"}})[0]; !f.OK {
		t.Errorf("nothing is wrong: %+v", f)
	}
	f := examineLogs([]container.Container{{Name: "web", Runtime: "docker", Log: container.Log{Truncates: true}}, {Name: "db"}},
		[]logship.StreamStatus{{Path: "/var/log/app.log", Truncated: true}})[0]
	f2 := examineLogs(nil, []logship.StreamStatus{{Name: "api", Format: "docker-json", Sinks: []logship.StreamLedger{{Whole: 3}}}})[0]
	if f2.OK || !strings.Contains(f2.Found, "api (3 whole files destroyed unread") {
		t.Errorf("got %+v", f2)
	}
	if f.OK || !strings.Contains(f.Found, "web (docker") || !strings.Contains(f.Found, "/var/log/app.log") || strings.Contains(f.Found, "db") || f.Advice == "" {
		t.Errorf("got %+v", f)
	}
}
