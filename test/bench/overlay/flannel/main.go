// Command flannel is flanneld with those of its parts that bench-overlay meets: the etcd subnet manager, the VXLAN backend
// and the iptables rules, called as its own main calls them. A whole flanneld cannot be built everywhere: one of its
// other backends stands on a module that not every proxy has.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan" // registers itself
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/etcd"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
)

func main() {
	endpoint := flag.String("etcd", "", "URL of etcd")
	iface := flag.String("iface", "", "the device of the underlay")
	file := flag.String("subnet-file", "", "where this host's subnet is written when all is ready")
	version := flag.Bool("version", false, "print flannel's version")
	flag.Parse()
	if *version {
		fmt.Println(flannelVersion())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *endpoint, *iface, *file); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "flannel:", err)
		os.Exit(1)
	}
}

func flannelVersion() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, d := range b.Deps {
			if d.Path == "github.com/flannel-io/flannel" {
				return d.Version
			}
		}
	}
	return "unknown"
}

func run(ctx context.Context, endpoint, iface, file string) error {
	const renewMargin, resync = 60, 5 // minutes, seconds: flanneld's defaults
	sm, err := etcd.NewLocalManager(ctx, &etcd.EtcdConfig{Endpoints: []string{endpoint}, Prefix: "/coreos.com/network"}, ip.IP4Net{}, ip.IP6Net{}, renewMargin)
	if err != nil {
		return fmt.Errorf("reach etcd: %w", err)
	}
	config, err := sm.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("read the network's configuration: %w", err)
	}
	under, err := underlay(config, iface)
	if err != nil {
		return err
	}
	be, err := backend.NewManager(ctx, sm, under).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	network, err := be.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return fmt.Errorf("register the network: %w", err)
	}
	rules := &iptables.IPTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return fmt.Errorf("begin with iptables: %w", err)
	}
	if err := rules.SetupAndEnsureMasqRules(ctx, config.Network, ip.IP4Net{}, ip.IP4Net{}, config.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, network.Lease(), resync, false); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, resync)
	if err := sm.HandleSubnetFile(file, config, true, network.Lease().Subnet, network.Lease().IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	wg.Go(func() { network.Run(ctx) })
	return sm.CompleteLease(ctx, network.Lease(), &wg)
}

func underlay(config *subnet.Config, iface string) (*backend.ExternalInterface, error) {
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return nil, err
	}
	return ipmatch.LookupExtIface(iface, "", "", stack, ipmatch.PublicIPOpts{})
}
