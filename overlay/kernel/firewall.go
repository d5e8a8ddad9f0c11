package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/nftables"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// ForwardDrops names who drops forwarded packets that he does not know: chains of others by their policy, as "table ip
// filter chain FORWARD", and "firewalld".
func (c *Conn) ForwardDrops() ([]string, error) {
	nft, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("look for other firewalls: %w", err)
	}
	chains, err := nft.ListChains()
	if err != nil {
		return nil, fmt.Errorf("look for other firewalls: %w", err)
	}
	var out []string
	for _, ch := range chains {
		forward := ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Type == nftables.ChainTypeFilter
		drops := ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
		family, ip := families[ch.Table.Family]
		if forward && drops && ip && ch.Table.Name != plan.TableName {
			out = append(out, fmt.Sprintf("table %s %s chain %s", family, ch.Table.Name, ch.Name))
		}
	}
	firewalld, err := firewalldRules()
	if err != nil {
		return nil, err
	}
	if firewalld {
		out = append(out, "firewalld")
	}
	legacy, err := c.legacyForwardDrops()
	if err != nil {
		return nil, fmt.Errorf("look for other firewalls: %w", err)
	}
	return append(out, legacy...), nil
}

var families = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}

// legacyForwardDrops asks for the policy of the old iptables, which nftables does not show. Its table is there only
// once somebody has used it.
func (c *Conn) legacyForwardDrops() ([]string, error) {
	f, err := os.Open(filepath.Join(c.root.Proc, "self/net/ip_tables_names"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if lines.Text() != "filter" {
			continue
		}
		rules, err := exec.Command("iptables-legacy", "-S", "FORWARD").Output()
		if err != nil {
			return nil, fmt.Errorf("iptables-legacy -S FORWARD: %w", err)
		}
		if strings.HasPrefix(string(rules), "-P FORWARD DROP") {
			return []string{"iptables-legacy table filter chain FORWARD"}, nil
		}
	}
	return nil, nil
}
