package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// crossings gives every pair of containers on different hosts, in both directions.
func (d *Demo) crossings() (pairs [][2]*Container) {
	for _, n := range d.nodes {
		for _, m := range d.nodes {
			if n == m {
				continue
			}
			for _, from := range n.containers {
				for _, to := range m.containers {
					pairs = append(pairs, [2]*Container{from, to})
				}
			}
		}
	}
	return pairs
}

var roundTrip = regexp.MustCompile(`3 packets received.*\n.*= [\d.]+/([\d.]+)/`)

// ping lets each container ping those on the other host.
func (d *Demo) ping(ctx context.Context) (string, error) {
	var averages []float64
	for _, p := range d.crossings() {
		out, err := p[0].exec(ctx, "ping", "-c", "3", "-i", "0.1", "-W", "2", p[1].Addr)
		m := roundTrip.FindStringSubmatch(out)
		if err != nil || m == nil {
			return "", fmt.Errorf("%s to %s (%s): not all of 3 pings were answered: %w: %s", p[0], p[1], p[1].Addr, err, strings.TrimSpace(out))
		}
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return "", err
		}
		averages = append(averages, ms)
	}
	slices.Sort(averages)
	return fmt.Sprintf("%d pairs across hosts, both ways, 3 of 3 answered each, round trip %.2f ms (median)", len(averages), averages[len(averages)/2]), nil
}

const blobSize = 10_000_000

// tcp passes a random file between containers on different hosts, both ways, and compares checksums. The VXLAN
// devices' own counters show which way the bytes took.
func (d *Demo) tcp(ctx context.Context) (string, error) {
	sums := map[*Container]string{}
	for _, n := range d.nodes {
		for _, c := range n.containers {
			out, err := c.exec(ctx, "sh", "-ec", fmt.Sprintf("head -c %d /dev/urandom > /srv/blob; httpd -p 8000 -h /srv; sha256sum < /srv/blob", blobSize))
			if err != nil {
				return "", err
			}
			sums[c] = strings.TrimSpace(out)
		}
	}
	before, err := d.vxlanBytes(ctx)
	if err != nil {
		return "", err
	}
	pairs := d.crossings()
	for _, p := range pairs {
		got, err := p[0].exec(ctx, "sh", "-ec", "wget -q -O - http://"+p[1].Addr+":8000/blob | sha256sum")
		if err != nil {
			return "", err
		}
		if got := strings.TrimSpace(got); got != sums[p[1]] {
			return "", fmt.Errorf("%s got checksum %s from %s, which sent %s", p[0], got, p[1], sums[p[1]])
		}
	}
	after, err := d.vxlanBytes(ctx)
	if err != nil {
		return "", err
	}
	var sent []string
	for _, n := range d.nodes {
		// Each host is the sender in half of the pairs.
		bytes, least := after[n.Name]-before[n.Name], int64(len(pairs)/2*blobSize)
		if bytes < least {
			return "", fmt.Errorf("%s sent %d bytes by VXLAN, but its containers passed %d", n.Name, bytes, least)
		}
		sent = append(sent, fmt.Sprintf("%s sent %.1f MB", n.Name, float64(bytes)/1e6))
	}
	return fmt.Sprintf("%d transfers of 10 MB across hosts, sha256 equal; by VXLAN: %s", len(pairs), strings.Join(sent, ", ")), nil
}

// vxlanBytes gives, by host, how many bytes its VXLAN devices have sent.
func (d *Demo) vxlanBytes(ctx context.Context) (map[string]int64, error) {
	sent := map[string]int64{}
	for _, n := range d.nodes {
		out, err := n.Run(ctx, "ip", "-s", "-j", "link", "show", "type", "vxlan")
		if err != nil {
			return nil, err
		}
		var links []struct {
			Stats struct {
				TX struct{ Bytes int64 } `json:"tx"`
			} `json:"stats64"`
		}
		if err := json.Unmarshal([]byte(out), &links); err != nil {
			return nil, fmt.Errorf("%s: read link statistics: %w", n.Name, err)
		}
		for _, l := range links {
			sent[n.Name] += l.Stats.TX.Bytes
		}
	}
	return sent, nil
}
