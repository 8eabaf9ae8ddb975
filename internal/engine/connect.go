package engine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/fault"
	"berth/internal/network"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

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

// shmPath is where the shared memory of a shareable container is mounted.
func (e *Engine) shmPath(id string) string { return filepath.Join(e.cfg.RunDir, "shm", id) }

// mountShm mounts the shared memory of a container whose ipc namespace others
// may join: they need a place of the host's to find it.
func (e *Engine) mountShm(rec *container.Record) (string, error) {
	dir := e.shmPath(rec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", wrapFS("create", dir, err)
	}
	if err := e.unmountShmAt(dir); err != nil {
		return "", err
	}
	opts := "mode=1777,size=" + strconv.FormatInt(rec.HostConfig.ShmSize, 10)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, opts); err != nil {
		return "", fault.New(fault.Internal, "mount shared memory", dir, "%w", err)
	}
	return dir, nil
}

func (e *Engine) unmountShm(id string) error {
	dir := e.shmPath(id)
	if err := e.unmountShmAt(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrapFS("remove", dir, err)
	}
	return nil
}

func (e *Engine) unmountShmAt(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch err {
		case nil: // there may be another one below
		case unix.EINVAL, unix.ENOENT:
			return nil
		default:
			return fault.New(fault.Internal, "unmount", dir, "%w", err)
		}
	}
}
