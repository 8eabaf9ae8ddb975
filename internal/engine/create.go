package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"berth/internal/container"
	"berth/internal/engine/networks"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/metadata"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ContainerCreate makes a container from an image and a request. When it returns
// without an error the container is on disk.
func (e *Engine) ContainerCreate(ctx context.Context, name string, req api.CreateRequest, platform *ocispec.Platform) (api.CreateResponse, error) {
	none := api.CreateResponse{}
	r, err := vocabulary.Complete(req)
	if err != nil {
		return none, err
	}
	img, err := e.images.Get(ctx, r.Config.Image)
	if err != nil {
		return none, err
	}
	if of, err := e.images.GetPlatform(ctx, r.Config.Image, platform); err == nil { // among those that a name has
		img = of
	}
	warnings, err := checkPlatform(r.Config.Image, img, platform)
	if err != nil {
		return none, err
	}
	r.Host = e.host
	vocabulary.Merge(r.Config, &img.Config.Config)
	e.live().Defaults.apply(r.HostConfig)
	r.Default()
	more, err := r.Check()
	if err != nil {
		return none, err
	}
	if err := checkOnUnhealthy(r.Config, r.HostConfig); err != nil {
		return none, err
	}
	rec, err := e.newRecord(ctx, r, img)
	if err != nil {
		return none, err
	}
	if err := e.nameContainer(rec, name); err != nil {
		return none, err
	}
	if err := e.store(ctx, rec); err != nil {
		e.containers.Release(rec.Name, rec.ID)
		return none, err
	}
	e.emit(rec, events.ActionCreate, nil)
	return api.CreateResponse{ID: rec.ID, Warnings: append(warnings, more...)}, nil
}

// checkPlatform refuses an image that is not of the platform asked for, and
// warns of one that this machine can't run by itself.
func checkPlatform(ref string, img *image.Image, want *ocispec.Platform) ([]string, error) {
	have := img.OS + "/" + img.Architecture
	if img.Variant != "" {
		have += "/" + img.Variant
	}
	if want != nil {
		if (want.OS != "" && want.OS != img.OS) || (want.Architecture != "" && want.Architecture != img.Architecture) ||
			(want.Variant != "" && img.Variant != "" && want.Variant != img.Variant) {
			return nil, fault.New(fault.NotFound, "", "",
				"image with reference %s was found but does not provide the specified platform (%s/%s): it is for %s", ref, want.OS, want.Architecture, have)
		}
		return nil, nil
	}
	if img.Architecture != "" && (img.Architecture != runtime.GOARCH || img.OS != "linux") {
		return []string{fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (linux/%s) and no specific platform was requested", have, runtime.GOARCH)}, nil
	}
	return nil, nil
}

// newRecord turns a checked request into a record.
func (e *Engine) newRecord(ctx context.Context, r *vocabulary.Request, img *image.Image) (*container.Record, error) {
	rec := &container.Record{
		ID:         newID(),
		Created:    time.Now(),
		ImageRef:   r.Config.Image,
		ImageID:    img.ID,
		Platform:   ocispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant},
		Layers:     img.DiffIDs,
		Config:     r.Config,
		HostConfig: r.HostConfig,
		State:      container.State{Status: api.StateCreated},
	}
	rec.Path, rec.Args = command(r.Config)
	if r.HostConfig.AutoRemove && r.HostConfig.RestartPolicy.Name == "" {
		rec.HostConfig.RestartPolicy.Name = api.RestartPolicyDisabled
	}
	var err error
	if rec.Log, err = vocabulary.Log(r.HostConfig.LogConfig, r.Config); err != nil {
		return nil, err
	}
	if err := e.joinOthers(rec); err != nil {
		return nil, err
	}
	for net, ep := range r.Networking.EndpointsConfig {
		if net == network.NetworkDefault {
			net = network.NetworkBridge
		}
		if rec.Networks == nil {
			rec.Networks = make(map[string]*network.EndpointSettings)
		}
		rec.Networks[net] = networks.Wished(ep)
	}
	if err := e.nets.Resolve(rec); err != nil {
		return nil, err
	}
	if err := e.setHostname(rec); err != nil {
		return nil, err
	}
	rec.Mounts, err = e.planMounts(ctx, rec)
	return rec, err
}

func command(c *api.Config) (string, []string) {
	all := make([]string, 0, len(c.Entrypoint)+len(c.Cmd))
	all = append(append(all, c.Entrypoint...), c.Cmd...)
	return all[0], all[1:]
}

// newID returns 64 hex digits of which the first twelve, the short id and so the
// host name, are not a mere number.
func newID() string {
	b := make([]byte, 32)
	for {
		_, _ = rand.Read(b) // never fails
		id := hex.EncodeToString(b)
		if _, err := strconv.ParseUint(id[:12], 10, 64); err != nil {
			return id
		}
	}
}

// joinOthers replaces names in "container:NAME" modes by ids, so that a rename
// does not change what is joined.
func (e *Engine) joinOthers(rec *container.Record) error {
	hc := rec.HostConfig
	for _, mode := range joiningModes(hc) {
		ref := vocabulary.Joined(*mode)
		if ref == "" {
			continue
		}
		other, err := e.findForCreate(ref)
		if err != nil {
			return err
		}
		if mode == (*string)(&hc.IpcMode) && !other.Record().HostConfig.IpcMode.IsShareable() {
			return fault.New(fault.Conflict, "", "", "cannot join IPC of a non-shareable container: %s", other.ID).
				WithHint("create it with --ipc shareable")
		}
		*mode = "container:" + other.ID
	}
	return nil
}

// findForCreate finds a container that a create names. That it is not there is a bad
// request: to docker's clients a create that finds something not is one without its
// image, which they go and pull.
func (e *Engine) findForCreate(ref string) (*container.Container, error) {
	c, err := e.containers.Find(ref)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.Invalid, "", "", "%w", err)
	}
	return c, err
}

// joiningModes are the modes that may name a container.
func joiningModes(hc *api.HostConfig) []*string {
	return []*string{(*string)(&hc.NetworkMode), (*string)(&hc.PidMode), (*string)(&hc.IpcMode),
		(*string)(&hc.UTSMode), (*string)(&hc.UsernsMode), (*string)(&hc.CgroupnsMode)}
}

// setHostname gives the container its short id as a name, unless it has one or
// shares somebody else's.
func (e *Engine) setHostname(rec *container.Record) error {
	c, hc := rec.Config, rec.HostConfig
	switch {
	case c.Hostname != "":
	case hc.NetworkMode.IsContainer(), vocabulary.Joined(hc.UTSMode) != "":
		other, err := e.containers.Find(cmp.Or(vocabulary.Joined(hc.UTSMode), vocabulary.Joined(hc.NetworkMode)))
		if err != nil {
			return err
		}
		o := other.Record().Config
		c.Hostname, c.Domainname = o.Hostname, o.Domainname
	case hc.NetworkMode == network.NetworkHost || hc.UTSMode.IsHost():
		c.Hostname, _ = os.Hostname() // without one, programs see an empty name
	default:
		c.Hostname = rec.ID[:12]
	}
	return nil
}

// nameContainer takes the wanted name, or a free one.
func (e *Engine) nameContainer(rec *container.Record, name string) error {
	if name == "" {
		rec.Name = e.containers.ReserveFree(rec.ID, container.RandomName)
		return nil
	}
	if name[0] == '/' {
		name = name[1:]
	}
	if err := container.CheckName(name); err != nil {
		return err
	}
	rec.Name = name
	return e.containers.Reserve(name, rec.ID)
}

// store makes the container's directories and volumes and commits its record,
// in this order: what a crash in between leaves has no record and is swept.
func (e *Engine) store(ctx context.Context, rec *container.Record) (err error) {
	if _, _, err := e.layers.Writable(rec.ID, rec.Layers, rec.MountedLayers()...); err != nil {
		return err
	}
	if err := e.tighten(rec); err != nil {
		e.abandon(rec.ID, nil)
		return err
	}
	used, fresh, err := e.makeVolumes(ctx, rec)
	defer func() {
		for _, v := range used {
			e.volumes.Settle(v.Name)
		}
	}()
	if err == nil {
		err = e.db.Update(func(tx *metadata.Tx) error {
			if err := e.volumes.Put(tx, used); err != nil {
				return err
			}
			return e.records.Put(tx, rec.ID, *rec)
		})
	}
	if err != nil {
		e.abandon(rec.ID, fresh)
		return err
	}
	e.containers.Add(container.New(rec))
	for _, v := range fresh {
		e.publishVolume(events.ActionCreate, v.Name)
	}
	return nil
}

// abandon removes what was made for a container that was not.
func (e *Engine) abandon(id string, fresh []volume.Volume) {
	for _, v := range fresh {
		if len(e.volumeUsersThat(v.Name, func(c *container.Container) bool { return c.ID != id })) > 0 {
			continue // somebody has found a use for it meanwhile
		}
		if err := e.volumes.Drop(v.Name); err != nil {
			e.log.Warn("remove volume of a failed create", "volume", v.Name, "error", err)
		}
	}
	if err := e.layers.RemoveWritable(id); err != nil {
		e.log.Warn("remove directory of a failed create", "container", id, "error", err)
	}
}

// dir is the container's directory below the data root.
func (e *Engine) dir(id string) string { return filepath.Join(e.cfg.Root, "containers", id) }
