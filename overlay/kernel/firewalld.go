package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// letThroughFirewalld tells firewalld, where it is in force, that our networks may be forwarded (its zone trusted) and
// that VXLAN comes in where the underlay is. It rejects both otherwise. The change is for the running firewall only, as
// all of ours is: a reload forgets it and is met by the next look. What of it was ours and is no longer wanted goes.
func (c *Conn) letThroughFirewalld(networks []plan.Network) (added []string, err error) {
	there, err := firewalldRules()
	if err != nil || !there {
		c.trusted = nil
		return nil, err
	}
	sources, err := firewallCmd("--zone=trusted", "--list-sources")
	if err != nil {
		return nil, err
	}
	change := func(args ...string) error {
		if _, err := firewallCmd(args...); err != nil {
			return err
		}
		added = append(added, "firewall-cmd "+strings.Join(args, " "))
		return nil
	}
	var wanted []netip.Prefix
	for _, n := range networks {
		wanted = append(wanted, n.CIDRs()...)
	}
	for _, cidr := range wanted {
		if slices.Contains(strings.Fields(sources), cidr.String()) {
			continue
		}
		if err := change("--zone=trusted", "--add-source="+cidr.String()); err != nil {
			return added, err
		}
		c.trusted = append(c.trusted, cidr)
	}
	for _, cidr := range slices.Clone(c.trusted) {
		if slices.Contains(wanted, cidr) {
			continue
		}
		if err := change("--zone=trusted", "--remove-source="+cidr.String()); err != nil {
			return added, err
		}
		c.trusted = slices.DeleteFunc(c.trusted, func(p netip.Prefix) bool { return p == cidr })
	}
	return added, c.openVXLAN(networks, change)
}

// openVXLAN opens our UDP port where the underlay's device is. Who may use it our own table says: peers alone.
func (c *Conn) openVXLAN(networks []plan.Network, change func(args ...string) error) error {
	i := slices.IndexFunc(networks, func(n plan.Network) bool { return n.Underlay.Addr.IsValid() })
	if i < 0 {
		return nil
	}
	underlay, err := c.FindUnderlay(networks[i].Underlay.Addr)
	if err != nil {
		return err
	}
	zone, err := firewallCmd("--get-zone-of-interface=" + underlay.Dev)
	if err != nil { // no zone: then it is in the default one
		if zone, err = firewallCmd("--get-default-zone"); err != nil {
			return err
		}
	}
	port := fmt.Sprintf("%d/udp", networks[i].Port)
	open, err := firewallCmd("--zone="+zone, "--list-ports")
	if err != nil || slices.Contains(strings.Fields(open), port) {
		return err
	}
	return change("--zone="+zone, "--add-port="+port)
}

// firewalldRules tells whether firewalld has its rules in force.
func firewalldRules() (bool, error) {
	nft, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("look for firewalld: %w", err)
	}
	tables, err := nft.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("look for firewalld: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == "firewalld" }), nil
}

// firewallCmdTime bounds one question to firewalld, which takes 0.2 s and waits while it reloads.
const firewallCmdTime = 30 * time.Second

// firewallCmd is firewalld's own client (firewall-cmd(1)).
func firewallCmd(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), firewallCmdTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "firewall-cmd", args...).Output()
	if err != nil {
		said := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			said = ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return "", fmt.Errorf("firewall-cmd %s: %w%s", strings.Join(args, " "), err, said)
	}
	return strings.TrimSpace(string(out)), nil
}
