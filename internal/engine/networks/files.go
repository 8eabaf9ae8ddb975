package networks

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/fault"
	netroom "berth/internal/network"
)

// Files are those in a container's /etc that tell it about its networks: where they
// are on the host.
type Files struct{ Resolv, Hosts, Hostname string }

// Files returns where the files of a container are which owns its networks.
func (s *Set) Files(id string) Files {
	dir := filepath.Join(s.Dir, id)
	return Files{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname")}
}

// writeFiles writes resolv.conf, hosts and hostname. They are not synced: they are
// made anew by every start.
func (s *Set) writeFiles(rec *container.Record, own *netroom.Endpoint) error {
	hosts, err := s.hostsFile(rec, own)
	if err != nil {
		return err
	}
	resolv, err := s.resolvFile(rec, own)
	if err != nil {
		return err
	}
	at := s.Files(rec.ID)
	for _, f := range [...]struct {
		path string
		text []byte
	}{{at.Resolv, resolv}, {at.Hosts, hosts}, {at.Hostname, []byte(rec.Config.Hostname + "\n")}} {
		if err := os.WriteFile(f.path, f.text, 0o644); err != nil {
			return fault.Wrap("write", f.path, err)
		}
	}
	return nil
}

// refresh brings the files of a running container up to date.
func (s *Set) refresh(rec *container.Record) {
	if !rec.State.Alive() {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	own, _ := s.Manager.Endpoint(rec.ID)
	if err := s.writeFiles(rec, own); err != nil {
		s.Log.Warn("write the network files of a container", "container", rec.ID, "error", err)
	}
}

func (s *Set) hostsFile(rec *container.Record, own *netroom.Endpoint) ([]byte, error) {
	o := netroom.HostsOptions{Hostname: rec.Config.Hostname, Domainname: rec.Config.Domainname, Extra: rec.HostConfig.ExtraHosts}
	if rec.HostConfig.NetworkMode == "host" {
		o.HostPath = "/etc/hosts"
	}
	if len(o.Extra) > 0 {
		b := s.Manager.Bridge()
		o.Gateways = []netip.Addr{b.Gateway4, b.Gateway6}
	}
	o.Addrs = s.addresses(rec, own)
	links, err := s.linksOf(rec)
	if err != nil && !rec.State.Alive() { // one that runs lives through the end of others
		return nil, err
	}
	o.Others = linkEntries(links)
	return netroom.Hosts(o)
}

// resolvFile makes a container's resolv.conf from the host's and its options.
func (s *Set) resolvFile(rec *container.Record, own *netroom.Endpoint) ([]byte, error) {
	hc := rec.HostConfig
	o := netroom.ResolvOptions{
		Search: hc.DNSSearch, Options: hc.DNSOptions, HostNet: hc.NetworkMode == "host",
		IPv6: slices.ContainsFunc(s.addresses(rec, own), netip.Addr.Is6),
	}
	for _, a := range hc.DNS {
		o.Servers = append(o.Servers, a.String())
	}
	if slices.ContainsFunc(s.Manager.Joined(rec.ID), func(ep *netroom.Endpoint) bool { return userDefined(ep.Name) }) {
		// The network's own name service, which asks the others.
		o.Servers = []string{netroom.NameServer}
		if !slices.ContainsFunc(o.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			o.Options = append(slices.Clone(o.Options), "ndots:0")
		}
	}
	return netroom.ResolvConf(o)
}
