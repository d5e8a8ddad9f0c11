package cni

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// config is a CNI network configuration as this plugin reads it. Keys of other plugins and capabilities are theirs.
type config struct {
	types.PluginConf
	Network string `json:"network"` // fairlead network; default: the configuration's name
	// Owner tells two runtimes apart that share a network's name: each one's GC speaks of its own containers only.
	Owner         string        `json:"owner"`
	RuntimeConfig runtimeConfig `json:"runtimeConfig"`
	Args          struct {
		CNI struct {
			IPs []string `json:"ips"`
			MAC string   `json:"mac"`
		} `json:"cni"`
	} `json:"args"`

	// Absent and empty are two things: nobody may lose his network because a list was forgotten. libcni also sends the
	// second name, which an early text of the spec had.
	Valid    *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	OldValid *[]types.GCAttachment `json:"cni.dev/attachments"`
}

// runtimeConfig are the capabilities that we know; see CONVENTIONS.md of the CNI project.
type runtimeConfig struct {
	IPs          []string          `json:"ips"`
	MAC          string            `json:"mac"`
	PortMappings []portMapping     `json:"portMappings"`
	Annotations  map[string]string `json:"io.kubernetes.cri.pod-annotations"` // containerd's
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

const maxOwner = 64

func parseConfig(text []byte) (config, *wire.Error) {
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return c, wire.Errorf(wire.CodeDecode, "decode network configuration", err)
	}
	if c.CNIVersion == "" {
		c.CNIVersion = "0.3.1" // the oldest that the spec's later versions assume
	}
	if !slices.Contains(wire.SpecVersions, c.CNIVersion) {
		return c, &wire.Error{Code: wire.CodeIncompatible, Msg: fmt.Sprintf("cniVersion: expected one of %v, found %q", wire.SpecVersions, c.CNIVersion)}
	}
	if c.network() == "" {
		return c, badConfig(`name: required, it chooses the network (or set "network")`)
	}
	if len(c.Owner) > maxOwner {
		return c, badConfig("owner: expected at most %d bytes, found %d", maxOwner, len(c.Owner))
	}
	return c, nil
}

func (c config) network() string {
	if c.Network != "" {
		return c.Network
	}
	return c.Name
}

// valid gives the attachments that a GC names.
func (c config) valid() ([]plan.Key, *wire.Error) {
	list := c.Valid
	if list == nil {
		list = c.OldValid
	}
	if list == nil {
		return nil, badConfig("cni.dev/valid-attachments: required by GC")
	}
	var out []plan.Key
	for i, a := range *list {
		if a.ContainerID == "" || a.IfName == "" {
			return nil, badConfig("cni.dev/valid-attachments[%d]: expected containerID and ifname, found %q and %q", i, a.ContainerID, a.IfName)
		}
		out = append(out, plan.Key{Owner: a.ContainerID, IfName: a.IfName})
	}
	return out, nil
}

func badConfig(format string, args ...any) *wire.Error {
	return &wire.Error{Code: wire.CodeInvalidConfig, Msg: fmt.Sprintf(format, args...)}
}
