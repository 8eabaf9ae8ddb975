package engine

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/images"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// ContainerInspect tells all about a container.
func (e *Engine) ContainerInspect(ctx context.Context, ref string, withSize bool) (api.InspectResponse, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return api.InspectResponse{}, err
	}
	rec := c.Record()
	out := api.InspectResponse{
		ID:              rec.ID,
		Created:         rec.Created.UTC().Format(time.RFC3339Nano),
		Path:            rec.Path,
		Args:            append([]string{}, rec.Args...),
		State:           rec.State.Docker(),
		Image:           rec.ImageID.String(),
		Name:            "/" + rec.Name,
		RestartCount:    rec.State.Restarts,
		Driver:          images.StorageDriver,
		Platform:        "linux",
		ExecIDs:         e.execs.Of(rec.ID),
		HostConfig:      e.hostConfig(rec),
		Mounts:          mountPoints(rec),
		Config:          rec.Config,
		NetworkSettings: e.networkSettings(rec),
		GraphDriver:     e.graphDriver(rec),
	}
	e.filePaths(rec, &out)
	if withSize {
		rw, root := e.sizes(ctx, rec)
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

// hostConfig adds what clients look for to guess where the container's cgroup is.
func (e *Engine) hostConfig(rec *container.Record) *api.HostConfig {
	hc := *rec.HostConfig
	hc.Links = e.nets.Links(rec)
	controller := "cpuset"
	if e.host.CgroupV2 {
		controller = ""
	}
	hc.Cgroup = api.CgroupSpec(filepath.Join("/sys/fs/cgroup", controller, spec.CgroupPath(rec)))
	return &hc
}

// filePaths fills in where the container's files are on the host.
func (e *Engine) filePaths(rec *container.Record, out *api.InspectResponse) {
	if rec.Log.Driver == vocabulary.LogJSONFile {
		out.LogPath = e.logPath(rec)
	}
	if rec.State.StartedAt.IsZero() {
		return
	}
	id := rec.ID
	if m := rec.HostConfig.NetworkMode; m.IsContainer() {
		id = m.ConnectedContainer()
	}
	files := e.nets.Files(id)
	out.ResolvConfPath, out.HostnamePath, out.HostsPath = files.Resolv, files.Hostname, files.Hosts
}

func (e *Engine) graphDriver(rec *container.Record) *storage.DriverData {
	dir := e.dir(rec.ID)
	data := map[string]string{"UpperDir": filepath.Join(dir, "upper"), "WorkDir": filepath.Join(dir, "work")}
	if lower, err := e.layers.Lower(rec.Layers); err == nil {
		data["LowerDir"] = strings.Join(lower, ":")
	}
	if s := rec.State; s.Alive() {
		// The root is mounted in the container's own namespace only.
		data["MergedDir"] = filepath.Join("/proc", strconv.Itoa(s.Pid), "root")
	}
	return &storage.DriverData{Name: images.StorageDriver, Data: data}
}

// mountPoints shows the mounts as docker does: tmpfs only where they were asked
// for as mounts.
func mountPoints(rec *container.Record) []api.MountPoint {
	out := []api.MountPoint{}
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeTmpfs && fromTmpfsMap(rec, m) {
			continue
		}
		p := api.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination,
			Driver: m.Driver, Mode: m.Mode, RW: !m.ReadOnly, Propagation: m.Propagation,
		}
		if m.Type == mount.TypeBind && p.Propagation == "" {
			p.Propagation = mount.PropagationRPrivate
		}
		out = append(out, p)
	}
	return out
}

func fromTmpfsMap(rec *container.Record, m volume.Mount) bool {
	for dst := range rec.HostConfig.Tmpfs {
		if filepath.Clean(dst) == m.Destination {
			return true
		}
	}
	return false
}

func portSummary(ports network.PortMap) []api.PortSummary {
	out := []api.PortSummary{}
	for p, bindings := range ports {
		if len(bindings) == 0 {
			out = append(out, api.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			host, _ := strconv.ParseUint(b.HostPort, 10, 16)
			out = append(out, api.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(host), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b api.PortSummary) int {
		if d := int(a.PrivatePort) - int(b.PrivatePort); d != 0 {
			return d
		}
		if d := strings.Compare(a.Type, b.Type); d != 0 {
			return d
		}
		return a.IP.Compare(b.IP)
	})
	return out
}

func (e *Engine) networkSettings(rec *container.Record) *api.NetworkSettings {
	n := &api.NetworkSettings{Ports: e.nets.Ports(rec), Networks: e.nets.Of(rec)}
	if !rec.State.Alive() {
		return n
	}
	if ep := e.nets.Endpoint(rec); ep != nil {
		n.SandboxID = ep.SandboxID
		n.SandboxKey = filepath.Join("/proc", strconv.Itoa(rec.State.Pid), "ns/net")
	} else if rec.HostConfig.NetworkMode == network.NetworkHost {
		n.SandboxID = e.id
		n.SandboxKey = "/proc/1/ns/net"
	}
	return n
}
