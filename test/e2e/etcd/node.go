package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// Node is a host with its agent and containers. Its methods must not be called concurrently.
type Node struct {
	*sim.Host
	Called string     // node.name
	Addr   netip.Addr // node.address
	Member bool       // it has joined, and has not left or been forgotten
	// Cut tells that it was taken off the wire, NoStore that it does not hear etcd.
	Cut, NoStore bool
	Boxes        map[string]Box // containers, by name

	w      *World
	bootID string
	agent  *exec.Cmd
	has    []Network // what it said last
}

// Box is a container: a namespace of its name on the host.
type Box struct {
	Network string
	Addr    netip.Addr
}

// Log is the file with what its agents logged.
func (n *Node) Log() string { return filepath.Join(n.Dir, "agent.log") }

// Sh runs a script on the host.
func (n *Node) Sh(ctx context.Context, script string) (string, error) {
	return n.Run(ctx, "/bin/sh", "-ec", script)
}

// Fairlead runs an operator's command on the host.
func (n *Node) Fairlead(ctx context.Context, args ...string) (string, error) {
	return n.Run(ctx, filepath.Join(n.w.bin, "fairlead"), args...)
}

// boot gives the host a boot id of its own; all hosts share the machine's.
func (n *Node) boot(ctx context.Context) error {
	n.w.boots++
	n.bootID = fmt.Sprintf("b0075000-0000-4000-8000-%012d", n.w.boots)
	if err := os.WriteFile(filepath.Join(n.Dir, "boot_id"), []byte(n.bootID+"\n"), 0o644); err != nil {
		return err
	}
	_, err := n.Sh(ctx, "mountpoint -q /proc/sys/kernel/random/boot_id || mount --bind "+filepath.Join(n.Dir, "boot_id")+" /proc/sys/kernel/random/boot_id")
	return err
}

// Start starts the agent. It does not wait for it.
func (n *Node) Start() error {
	networks := ""
	if n.w.networks != "" {
		networks = "\n  networks: " + n.w.networks
	}
	text := fmt.Sprintf("node: {name: %s, address: %s}\noverlay:\n  store: etcd\n  etcd: {endpoints: [%q], session: 2s, grace: 2s}%s\n", n.Called, n.Addr, n.w.Etcd.URL, networks)
	if err := os.WriteFile(n.Path("/etc/fairlead/fairlead.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := n.Command(context.Background(), filepath.Join(n.w.bin, "fairlead"), "agent")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: start agent: %w", n.Name, err)
	}
	n.agent, n.Member = cmd, true
	return nil
}

// Kill ends the agent with SIGKILL, Stop with SIGTERM. A second time they do nothing.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

// Stop ends the agent with SIGTERM.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

func (n *Node) end(how syscall.Signal) {
	if n.Runs() {
		_ = syscall.Kill(-n.agent.Process.Pid, how) // the group: shell, nsenter, agent
		_ = n.agent.Wait()
	}
}

// Runs tells whether its agent was started and not ended.
func (n *Node) Runs() bool { return n.agent != nil && n.agent.ProcessState == nil }

// Move gives the host another address. The agent, which must not run, is told at its next start.
func (n *Node) Move(ctx context.Context, to netip.Addr) error {
	_, err := n.Sh(ctx, fmt.Sprintf("ip addr del %s/24 dev eth0; ip addr add %s/24 dev eth0", n.Addr, to))
	n.Addr = to
	return err
}

// Reimage makes the host what it was before its first start: another boot, no state, no container, nothing of ours in
// its kernel. The agent must not run.
func (n *Node) Reimage(ctx context.Context) error {
	n.Boxes, n.has = map[string]Box{}, nil
	_, err := n.Sh(ctx, `for b in $(ip netns list | cut -d' ' -f1); do ip netns del $b; done
		ip route flush proto 94; ip -6 route flush proto 94; nft delete table inet fairlead 2>/dev/null || :
		for l in $(ip -br link | grep -o '^fl-vx[0-9]*'); do ip link del $l; done
		rm -rf /var/lib/fairlead/* /run/fairlead`)
	return errors.Join(err, n.boot(ctx))
}

// DeafToStore lets nothing of etcd's in, or ends that.
func (n *Node) DeafToStore(ctx context.Context, deaf bool) error {
	n.NoStore = deaf
	script := "nft delete table inet deaf 2>/dev/null || :"
	if deaf {
		script = fmt.Sprintf("nft 'add table inet deaf; add chain inet deaf in { type filter hook input priority -300; }; add rule inet deaf in ip saddr %s drop'", n.w.Sim.Host("store").Address)
	}
	_, err := n.Sh(ctx, script)
	return err
}

// Unplug takes the host off the wire, its agent and containers with it, or ends that.
func (n *Node) Unplug(ctx context.Context, cut bool) error {
	n.Cut = cut
	if cut {
		return n.w.Sim.Cut(ctx, n.Host)
	}
	return n.w.Sim.Heal(ctx, n.Host)
}

// Add makes a container and attaches it by the plugin.
func (n *Node) Add(ctx context.Context, box, network string) error {
	if _, err := n.Sh(ctx, "ip netns add "+box); err != nil {
		return err
	}
	out, err := n.cni(ctx, "ADD", box, network)
	if err != nil {
		return fmt.Errorf("ADD %s: %w: %s", box, err, out)
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) == 0 {
		return fmt.Errorf("ADD %s: %w: %s", box, err, out)
	}
	n.Boxes[box] = Box{network, result.IPs[0].Address.Addr()}
	return nil
}

// Del takes a container off and ends it.
func (n *Node) Del(ctx context.Context, box string) error {
	if out, err := n.cni(ctx, "DEL", box, n.Boxes[box].Network); err != nil {
		return fmt.Errorf("DEL %s: %w: %s", box, err, out)
	}
	delete(n.Boxes, box)
	_, err := n.Sh(ctx, "ip netns del "+box)
	return err
}

func (n *Node) cni(ctx context.Context, command, box, network string) (string, error) {
	return n.Sh(ctx, fmt.Sprintf(
		`echo '{"cniVersion":"1.0.0","name":%q,"type":"fairlead-cni"}' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_NETNS=/run/netns/%s CNI_IFNAME=eth0 CNI_PATH=%s %s/fairlead-cni`,
		network, command, box, box, n.w.bin, n.w.bin))
}

// unreached tells which of others, all of one network or several, one of the host's containers does not reach by a ping.
func (n *Node) unreached(ctx context.Context, others []Box) []string {
	var script strings.Builder
	for name, box := range n.Boxes {
		for _, o := range others {
			if o.Network == box.Network {
				fmt.Fprintf(&script, "nsenter --net=/run/netns/%[1]s ping -q -c1 -W1 %[2]s >/dev/null || echo %[3]s: %[1]s does not reach %[2]s\n", name, o.Addr, n.Name)
			}
		}
	}
	out, err := n.Sh(ctx, script.String())
	if err != nil {
		return []string{err.Error()}
	}
	return slices.Collect(strings.Lines(out))
}
