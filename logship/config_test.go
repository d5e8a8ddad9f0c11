package logship

import (
	"strings"
	"testing"
)

func TestEveryProblemOfTheConfigurationIsNamedWithItsKey(t *testing.T) {
	t.Parallel()
	c := Config{Pins: "maybe", Files: []File{{Path: "var/*.log"}, {Path: "/a/["}, {Path: "/out/*"}}, Sinks: []SinkConfig{
		{Name: "a b", Type: "syslog", Address: "udp://x"},
		{Name: "f", Type: "file", Path: "copy.log", Address: "tcp://h:1"},
		{Name: "f", Type: "file", Path: "/out/copy", From: "middle"},
		{Name: "k", Type: "carrier"},
		{Name: "p", Type: "syslog", Address: "tcp://logs:70000", Path: "/x"},
		{Name: "l", Type: "loki", URL: "loki:3100", User: "u"},
		{Name: "r", Type: "file", Path: "/r/r", MaxBytes: 1},
		{Name: "q", Type: "kafka", Address: "tcp://b1:9092,b2", Topic: "a b", SASL: "digest", User: "u"},
		{Name: "v", Type: "kafka", Address: "tls://b1:9092,b2:9092", User: "u", PasswordFile: "/p"},
		{Name: "w", Type: "relp", Address: "udp://logs:2514", Topic: "t", SASL: "plain"},
	}}
	want := `logship.files[0].path: "var/*.log"
logship.files[1].path: "/a/["
logship.pins: "maybe"
logship.sinks[0].name: "a b"
logship.sinks[0].address: "udp://x" is not valid, expected tcp://host:port, tls://host:port, udp://host:port
logship.sinks[1].address: "tcp://h:1"
logship.sinks[1].path: "copy.log"
logship.sinks[2].name: "f"
logship.sinks[2].path: "/out/copy"
logship.sinks[2].from: "middle"
logship.sinks[3].type: "carrier"
logship.sinks[4].address: "tcp://logs:70000"
logship.sinks[4].path: "/x"
logship.sinks[5].url: "loki:3100"
logship.sinks[5].password_file: ""
logship.sinks[6].keep: "0"
logship.sinks[7].address: "tcp://b1:9092,b2"
logship.sinks[7].password_file: ""
logship.sinks[7].topic: "a b"
logship.sinks[7].sasl: "digest" is not valid, expected plain, scram-sha-256, scram-sha-512 or nothing
logship.sinks[8].user: "u" is not valid, expected a name with sasl, and none without
logship.sinks[9].address: "udp://logs:2514" is not valid, expected tcp://host:port, tls://host:port
logship.sinks[9].topic: "t" is not valid, expected nothing: a relp sink has none
logship.sinks[9].sasl: "plain"`
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	for i, w := range strings.Split(want, "\n") {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			t.Fatalf("line %d: want %s\ngot:\n%s", i, w, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
