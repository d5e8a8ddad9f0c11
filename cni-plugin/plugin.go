// Package plugin turns one CNI call into one request to the daemon and prints the answer. It knows nothing of
// networks: no netlink, no HTTP, so that it starts in about the time of an empty Go program.
//
// When the daemon is away, STATUS says so (code 50), a DEL is written to a spool that the daemon drains before it
// serves, and the others say "try again later" (code 11). The spool is all it owns; it lies beside the socket under /run and is void after a
// reboot, like the attachments it speaks of.
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
)

// Call is what a runtime hands to a plugin.
type Call struct {
	Env    func(string) string // the CNI_* variables
	Stdin  io.Reader           // the network configuration
	Stdout io.Writer           // the result, or the error as the spec has it
}

// config is the part of a network configuration that the plugin itself needs.
type config struct {
	CNIVersion string          `json:"cniVersion"`
	Type       string          `json:"type"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

// Run serves one call and gives the exit code. It blocks until the daemon has answered, at most replyTimeout.
func Run(c Call) int {
	if c.Env("CNI_COMMAND") == "VERSION" {
		return c.version()
	}
	crash.Begin(c.Env("CNI_COMMAND"))
	req, conf, err := c.request()
	if err != nil {
		return c.fail(conf.CNIVersion, err)
	}
	if conf.Type == "loopback" {
		if err := c.loopback(req.Command, conf.CNIVersion, conf.PrevResult); err != nil {
			return c.fail(conf.CNIVersion, err)
		}
		return 0
	}
	res, err := ask(conf.Socket, req)
	switch {
	case err != nil && req.Command == "DEL":
		err = spool(conf.Socket, req)
	case err != nil && req.Command == "STATUS":
		err = wire.Errorf(wire.CodeNotAvailable, "fairlead agent does not answer on "+conf.Socket, err)
	case err != nil:
		err = wire.Errorf(wire.CodeTryLater, "fairlead agent does not answer on "+conf.Socket, err)
	case res.Error != nil:
		err = res.Error
	}
	if err != nil {
		return c.fail(conf.CNIVersion, err)
	}
	if len(res.Result) > 0 {
		fmt.Fprintf(c.Stdout, "%s\n", res.Result)
	}
	crash.Point("printed")
	return 0
}

// version answers without the daemon, so that a runtime can load the network before the daemon is up.
func (c Call) version() int {
	var conf config
	conf.CNIVersion = wire.SpecVersions[len(wire.SpecVersions)-1]
	_ = json.NewDecoder(c.Stdin).Decode(&conf) // the spec allows an empty standard input here
	b, _ := json.Marshal(struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{conf.CNIVersion, wire.SpecVersions})
	fmt.Fprintf(c.Stdout, "%s\n", b)
	return 0
}

// required names the variables that each command needs.
var required = map[string][]string{
	"ADD":    {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"DEL":    {"CNI_CONTAINERID", "CNI_IFNAME"},
	"CHECK":  {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
	"STATUS": nil,
	"GC":     nil,
}

func (c Call) request() (wire.Request, config, error) {
	conf := config{Socket: wire.DefaultSocket}
	req := wire.Request{
		Version:     wire.Version,
		Command:     c.Env("CNI_COMMAND"),
		ContainerID: c.Env("CNI_CONTAINERID"),
		NetNS:       c.Env("CNI_NETNS"),
		IfName:      c.Env("CNI_IFNAME"),
		Args:        c.Env("CNI_ARGS"),
	}
	stdin, err := io.ReadAll(io.LimitReader(c.Stdin, wire.MaxMessage))
	if err == nil && len(stdin) == wire.MaxMessage {
		err = fmt.Errorf("it exceeds %d bytes", wire.MaxMessage-1)
	}
	if err != nil {
		return req, conf, wire.Errorf(wire.CodeIO, "read network configuration from standard input", err)
	}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return req, conf, wire.Errorf(wire.CodeDecode, "decode network configuration from standard input", err)
	}
	req.Config = stdin
	needs, known := required[req.Command]
	if !known {
		return req, conf, &wire.Error{Code: wire.CodeInvalidEnv, Msg: fmt.Sprintf("CNI_COMMAND: expected ADD, DEL, CHECK, STATUS, GC or VERSION, found %q", req.Command)}
	}
	for _, name := range needs {
		if c.Env(name) == "" {
			return req, conf, &wire.Error{Code: wire.CodeInvalidEnv, Msg: fmt.Sprintf("%s: required by %s, but it is empty", name, req.Command)}
		}
	}
	return req, conf, nil
}

// fail prints err as the spec's error object. A plugin's exit code says only that there is one.
func (c Call) fail(version string, err error) int {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = &wire.Error{Code: wire.CodeFailed, Msg: err.Error()}
	}
	if version == "" {
		version = wire.SpecVersions[len(wire.SpecVersions)-1]
	}
	b, _ := json.Marshal(struct {
		CNIVersion string `json:"cniVersion"`
		*wire.Error
	}{version, e})
	fmt.Fprintf(c.Stdout, "%s\n", b)
	return 1
}

// spool keeps a DEL for the daemon's next start. The daemon may have come up and drained the spool between our two
// looks, so it is asked once more after the request lies there; a DEL that is served twice does no harm. What is served
// the daemon itself takes from the spool. Its answer may also be that it keeps the request until it is ready: then it
// lies there on purpose.
func spool(socket string, req wire.Request) error {
	if _, err := wire.Spool(socket, req); err != nil {
		return wire.Errorf(wire.CodeTryLater, "the agent does not answer, and the DEL cannot be kept for it", err)
	}
	if res, err := ask(socket, req); err == nil && res.Error != nil {
		return res.Error // the runtime tries again
	}
	return nil
}
