package engine

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/network"
)

// connect gives a container its network namespace and writes the files in /etc
// that describe it.
func (e *Engine) connect(ctx context.Context, rec *container.Record, in *spec.Input) error {
	mode := rec.HostConfig.NetworkMode
	var own *network.Endpoint
	var err error
	switch {
	case mode.IsContainer():
		return e.shareNetwork(rec, in)
	case mode == "host":
		in.Net.Host = true
	case mode.IsUserDefined() || !slices.Contains(networkNames(rec), bridge):
		if own, err = e.network.NewSandbox(ctx, rec.ID); err != nil {
			return err
		}
	default:
		req, err := networkRequest(rec)
		if err != nil {
			return err
		}
		if len(networkNames(rec)) > 1 {
			req.Ports = nil // they go to whichever network gets the default route
		}
		if own, err = e.network.Attach(ctx, rec.ID, req); err != nil {
			return err
		}
	}
	if own != nil {
		in.Net.Path = own.SandboxPath
		if err := e.joinNetworks(ctx, rec, own); err != nil {
			return err
		}
	}
	return e.writeNetworkFiles(rec, in, own)
}

// networkRequest is what the record asks of the default bridge.
func networkRequest(rec *container.Record) (network.Request, error) {
	r := network.Request{}
	ports, err := vocabulary.Ports(&vocabulary.Request{Config: rec.Config, HostConfig: rec.HostConfig})
	if err != nil {
		return r, err
	}
	for _, p := range ports {
		r.Ports = append(r.Ports, network.Port{
			Proto: string(p.Port.Proto()), HostIP: p.HostIP, HostPort: p.From, HostPortEnd: p.To, ContainerPort: p.Port.Num(),
		})
	}
	if ep := rec.Networks["bridge"]; ep != nil {
		if ep.IPAMConfig != nil {
			r.IPv4, r.IPv6 = ep.IPAMConfig.IPv4Address.Unmap(), ep.IPAMConfig.IPv6Address
		}
		if len(ep.MacAddress) > 0 {
			r.MAC = []byte(ep.MacAddress)
		}
		r.GwPriority = ep.GwPriority
	}
	return r, nil
}

// shareNetwork joins the network of another container, files included.
func (e *Engine) shareNetwork(rec *container.Record, in *spec.Input) error {
	id := rec.HostConfig.NetworkMode.ConnectedContainer()
	other, err := e.containers.Find(id)
	if err != nil {
		return err
	}
	// Through however many containers: the last one has the namespace and files.
	for owner := other.Record(); ; owner = other.Record() {
		if in.Net.Path, err = e.namespaceOf(other.ID, "net"); err != nil {
			return err
		}
		m := owner.HostConfig.NetworkMode
		if !m.IsContainer() {
			break
		}
		if other, err = e.containers.Find(m.ConnectedContainer()); err != nil {
			return err
		}
	}
	dir := e.dir(other.ID)
	in.Resolv, in.Hosts, in.HostnameFile = filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname")
	return nil
}

// writeNetworkFiles writes resolv.conf, hosts and hostname. They are not synced:
// they are made anew by every start.
func (e *Engine) writeNetworkFiles(rec *container.Record, in *spec.Input, own *network.Endpoint) error {
	dir := e.dir(rec.ID)
	if in == nil {
		in = new(spec.Input) // the container knows the files already
	}
	in.Resolv, in.Hosts, in.HostnameFile = filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname")
	hosts, err := e.hostsFile(rec, own)
	if err != nil {
		return err
	}
	resolv, err := e.resolvFile(rec, own)
	if err != nil {
		return err
	}
	for _, f := range [...]struct {
		path string
		text []byte
	}{{in.Resolv, resolv}, {in.Hosts, hosts}, {in.HostnameFile, []byte(rec.Config.Hostname + "\n")}} {
		if err := os.WriteFile(f.path, f.text, 0o644); err != nil {
			return wrapFS("write", f.path, err)
		}
	}
	return nil
}

func (e *Engine) hostsFile(rec *container.Record, own *network.Endpoint) ([]byte, error) {
	o := network.HostsOptions{Hostname: rec.Config.Hostname, Domainname: rec.Config.Domainname, Extra: rec.HostConfig.ExtraHosts}
	if rec.HostConfig.NetworkMode == "host" {
		o.HostPath = "/etc/hosts"
	}
	if len(o.Extra) > 0 {
		b := e.network.Bridge()
		o.Gateways = []netip.Addr{b.Gateway4, b.Gateway6}
	}
	o.Addrs = e.ownAddrs(rec, own)
	return network.Hosts(o)
}

// resolvFile makes a container's resolv.conf from the host's and its options.
func (e *Engine) resolvFile(rec *container.Record, own *network.Endpoint) ([]byte, error) {
	hc := rec.HostConfig
	o := network.ResolvOptions{
		Search: hc.DNSSearch, Options: hc.DNSOptions, HostNet: hc.NetworkMode == "host",
		IPv6: slices.ContainsFunc(e.ownAddrs(rec, own), netip.Addr.Is6),
	}
	for _, s := range hc.DNS {
		o.Servers = append(o.Servers, s.String())
	}
	if slices.ContainsFunc(e.network.Joined(rec.ID), func(ep *network.Endpoint) bool { return userDefined(ep.Name) }) {
		// The network's own name service, which asks the others.
		o.Servers = []string{network.NameServer}
		if !slices.ContainsFunc(o.Options, func(s string) bool { return strings.HasPrefix(s, "ndots:") }) {
			o.Options = append(slices.Clone(o.Options), "ndots:0")
		}
	}
	return network.ResolvConf(o)
}
