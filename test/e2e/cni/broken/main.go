// Command broken is a CNI plugin that is wrong in one way at a time, so that each case of the suite is shown to fail for
// its fault. It passes every call on to a real plugin ($CNI_SUITE_REAL) and spoils what $CNI_SUITE_FAULT names: the
// call, the answer, or the host. Without a fault it changes nothing.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := &call{fault: os.Getenv("CNI_SUITE_FAULT"), command: os.Getenv("CNI_COMMAND"), netns: os.Getenv("CNI_NETNS"), stdin: string(stdin), args: os.Getenv("CNI_ARGS")}
	if f := faults[c.fault]; f != nil {
		f(c)
	} else if c.fault != "" {
		fmt.Fprintf(os.Stderr, "unknown fault %q\n", c.fault)
		os.Exit(1)
	} else {
		c.pass()
	}
	fmt.Print(c.out)
	os.Exit(c.exit)
}

// call is one call of the plugin, and its answer.
type call struct {
	fault, command, netns, stdin, args string
	out                                string
	exit                               int
}

// faults say what is done instead of passing the call on.
var faults = map[string]func(*call){
	"version":          after("VERSION", func(c *call) { c.out = strings.Replace(c.out, `,"1.1.0"]`, "]", 1) }),
	"result-version":   after("ADD", func(c *call) { c.edit(func(r map[string]any) { r["cniVersion"] = "1.0.0" }) }),
	"error-code":       after("", func(c *call) { c.edit(func(r map[string]any) { r["code"] = 999 }) }),
	"status-bad":       instead("STATUS", func(c *call) { c.fail(50, "not today") }),
	"status-blind":     instead("STATUS", func(*call) {}),
	"add-blind":        after("ADD", func(c *call) { c.pretend() }),
	"gc-nothing":       instead("GC", func(*call) {}),
	"gc-everything":    before("GC", func(c *call) { c.stdin = strings.Replace(c.stdin, `"name":"another"`, `"name":"suite"`, 1) }),
	"previous-dropped": before("ADD", func(c *call) { c.stdin = strings.Replace(c.stdin, `"prevResult"`, `"formerly"`, 1) }),
	"result-mac":       after("ADD", func(c *call) { c.out = strings.ReplaceAll(c.out, `"mac":"02:fa`, `"mac":"02:ff`) }),
	"dead":             after("ADD", func(c *call) { c.inside("ip link set $CNI_IFNAME down") }),
	"second-address": after("ADD", func(c *call) {
		c.inside("ip addr add 198.51.100.77/32 dev eth0 && ip addr show eth0 | grep -q x && true")
	}),
	"takes-over":      before("ADD", func(c *call) { c.inside("ip link del eth0") }),
	"namespace-blind": instead("ADD", func(c *call) { c.pass(); c.pretend() }),
	"del-all":         after("DEL", func(c *call) { c.inside("ip link del eth0") }),
	"route-thief":     after("ADD", func(c *call) { c.inside("ip route replace default dev eth0") }),
	"del-nothing":     instead("DEL", func(*call) {}),
	"del-strict":      instead("DEL", func(c *call) { c.onlyIf("ip link show $CNI_IFNAME") }),
	"del-once": instead("DEL", func(c *call) {
		c.onlyIf("! ip link show deld0")
		c.inside("ip link add deld0 type veth peer name deld1")
	}),
	"del-not-kept": instead("DEL", func(c *call) { c.unlessDown() }),
	"leak-link":    before("ADD", func(*call) { host("ip link add lk$$ type veth peer name lp$$") }),
	"conntrack-kept": after("DEL", func(c *call) {
		host("for i in $(seq 20); do conntrack -I -p udp -s " + c.address() + " -d 192.0.2.1 --sport 7 --dport 7 -t 600 2>/dev/null; sleep 0.05; done")
	}),
	"check-bad":        instead("CHECK", func(c *call) { c.fail(101, "not today") }),
	"check-blind":      instead("CHECK", func(*call) {}),
	"check-mute":       after("CHECK", func(c *call) { c.mute() }),
	"check-sabotage":   instead("CHECK", func(*call) { sabotage() }),
	"wishes-ignored":   before("ADD", func(c *call) { c.args, c.stdin = "", strings.Replace(c.stdin, `"runtimeConfig"`, `"wishes"`, 1) }),
	"leak-when-killed": leakWhenKilled,
	"one-address": after("ADD", func(c *call) {
		c.edit(func(r map[string]any) { r["ips"].([]any)[0].(map[string]any)["address"] = "10.42.0.77/32" })
	}),
}

func before(command string, do func(*call)) func(*call) {
	return func(c *call) {
		if c.command == command {
			do(c)
		}
		c.pass()
	}
}

func after(command string, do func(*call)) func(*call) {
	return func(c *call) {
		c.pass()
		if c.command == command || command == "" {
			do(c)
		}
	}
}

func instead(command string, do func(*call)) func(*call) {
	return func(c *call) {
		if c.command != command {
			c.pass()
			return
		}
		do(c)
	}
}

// pass lets the real plugin answer.
func (c *call) pass() {
	real := exec.Command(os.Getenv("CNI_SUITE_REAL"))
	real.Env = append(os.Environ(), "CNI_ARGS="+c.args)
	real.Stdin = strings.NewReader(c.stdin)
	out, err := real.Output()
	c.out = string(out)
	var exit *exec.ExitError
	if c.exit = real.ProcessState.ExitCode(); err != nil && !errors.As(err, &exit) {
		c.fail(999, err.Error())
	}
}

func (c *call) fail(code int, msg string) {
	text, _ := json.Marshal(map[string]any{"cniVersion": "1.1.0", "code": code, "msg": msg})
	c.out, c.exit = string(text), 1
}

// edit changes the answer, when it is one.
func (c *call) edit(change func(map[string]any)) {
	var r map[string]any
	if err := json.Unmarshal([]byte(c.out), &r); err != nil {
		return
	}
	change(r)
	text, _ := json.Marshal(r)
	c.out = string(text)
}

// pretend makes a failure look like success.
func (c *call) pretend() {
	if c.exit != 0 {
		c.out, c.exit = `{"cniVersion":"1.1.0","interfaces":[],"ips":[],"dns":{}}`, 0
	}
}

// mute takes the reason out of a failure.
func (c *call) mute() {
	if c.exit != 0 {
		c.fail(101, "something is wrong")
	}
}

func (c *call) onlyIf(inside string) {
	if c.inside(inside) {
		c.pass()
	} else {
		c.fail(999, "there is nothing to delete")
	}
}

func (c *call) unlessDown() {
	del := *c
	status := exec.Command(os.Getenv("CNI_SUITE_REAL"))
	status.Env = append(os.Environ(), "CNI_COMMAND=STATUS")
	status.Stdin = strings.NewReader(c.stdin)
	if status.Run() == nil {
		del.pass()
	}
	*c = del
}

// inside runs a script in the container's network and tells whether it succeeded.
func (c *call) inside(script string) bool {
	return exec.Command("nsenter", "--net="+c.netns, "sh", "-c", script).Run() == nil
}

func host(script string) {
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v: %s\n", script, err, bytes.TrimSpace(out))
	}
}

// address is the first one in prevResult.
func (c *call) address() string {
	var conf struct {
		PrevResult struct{ IPs []struct{ Address string } }
	}
	if err := json.Unmarshal([]byte(c.stdin), &conf); err != nil || len(conf.PrevResult.IPs) == 0 {
		return "198.51.100.1"
	}
	addr, _, _ := strings.Cut(conf.PrevResult.IPs[0].Address, "/")
	return addr
}

// sabotage leaves a change on the host that nobody else would put right.
func sabotage() { host("ip route replace blackhole 198.51.100.77") }

// leakWhenKilled does something to the host that it takes back at the end, if it lives to see it.
func leakWhenKilled(c *call) {
	host("ip rule add from 198.51.100.77 lookup main")
	c.pass()
	host("ip rule del from 198.51.100.77 lookup main")
}
