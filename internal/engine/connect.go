package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/engine/spec"
)

// connect puts a container that is being started on its networks.
func (e *Engine) connect(ctx context.Context, rec *container.Record, in *spec.Input) (err error) {
	owner := rec.ID
	if rec.HostConfig.NetworkMode.IsContainer() {
		owner, in.Net.Path, err = e.sharedNetwork(rec)
	} else {
		in.Net.Host = rec.HostConfig.NetworkMode.IsHost()
		in.Net.Path, err = e.nets.Attach(ctx, rec)
		in.Links = e.nets.LinkVariables(rec)
	}
	files := e.nets.Files(owner)
	in.Resolv, in.Hosts, in.HostnameFile = files.Resolv, files.Hosts, files.Hostname
	return err
}

// sharedNetwork finds the container whose network another one has, through however
// many that share it, and the network's namespace.
func (e *Engine) sharedNetwork(rec *container.Record) (owner, namespace string, err error) {
	for rec.HostConfig.NetworkMode.IsContainer() {
		other, err := e.containers.Find(rec.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			return "", "", err
		}
		if namespace, err = e.namespaceOf(other.ID, "net"); err != nil {
			return "", "", err
		}
		rec = other.Record()
	}
	return rec.ID, namespace, nil
}
