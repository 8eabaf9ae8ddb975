package api

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerEngine is what the container endpoints call.
type containerEngine interface {
	ContainerCreate(ctx context.Context, name string, req container.CreateRequest, platform *ocispec.Platform) (container.CreateResponse, error)
	ContainerStart(ctx context.Context, ref, detachKeys string) error
	ContainerStop(ctx context.Context, ref string, o engine.StopOptions) error
	ContainerRestart(ctx context.Context, ref string, o engine.StopOptions) error
	ContainerKill(ctx context.Context, ref, signal string) error
	ContainerPause(ctx context.Context, ref string) error
	ContainerUnpause(ctx context.Context, ref string) error
	ContainerRename(ctx context.Context, ref, newName string) error
	ContainerRemove(ctx context.Context, ref string, o engine.RemoveOptions) error
	ContainerList(ctx context.Context, o engine.ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	ContainerResize(ctx context.Context, ref string, h, w uint16) error
	containerStreams
}

// head is what a list of containers shows unless it is asked for more: with
// brief=1, an extension, nothing else is sent.
type head struct {
	ID         string `json:"Id"`
	Names      []string
	Image      string
	Command    string
	Created    int64
	Ports      []container.PortSummary
	SizeRw     int64 `json:",omitempty"`
	SizeRootFs int64 `json:",omitempty"`
	State      container.ContainerState
	Status     string
}

func heads(list []container.Summary) []head {
	out := make([]head, len(list))
	for i, c := range list {
		out[i] = head{c.ID, c.Names, c.Image, c.Command, c.Created, c.Ports, c.SizeRw, c.SizeRootFs, c.State, c.Status}
	}
	return out
}

func listContainers(x *exchange) error {
	o := engine.ListOptions{All: x.flag("all"), Size: x.flag("size")}
	limit, err := x.number("limit")
	if err != nil {
		return err
	}
	if limit != nil {
		o.Limit = max(*limit, 0)
	}
	if o.Filters, err = filter.Parse(x.query("filters")); err != nil {
		return err
	}
	list, err := x.api.engine.ContainerList(x.ctx(), o)
	if err != nil {
		return err
	}
	if list == nil {
		list = []container.Summary{}
	}
	for i := range list {
		adaptListed(x.version, &list[i])
	}
	if x.flag("brief") {
		return x.reply(http.StatusOK, heads(list))
	}
	return x.reply(http.StatusOK, list)
}

// adaptListed takes out of a list's item what older clients do not know.
func adaptListed(v apiVersion, c *container.Summary) {
	if v.before(46) {
		c.HostConfig.Annotations = nil
	}
	if v.before(48) {
		c.ImageManifestDescriptor = nil
	}
	if v.before(52) {
		c.Health = nil
	}
}

func inspectContainer(x *exchange) error {
	c, err := x.api.engine.ContainerInspect(x.ctx(), x.path("id"), x.flag("size"))
	if err != nil {
		return err
	}
	if c.Config == nil {
		c.Config = &container.Config{}
	}
	if x.version.before(48) {
		c.ImageManifestDescriptor = nil
	}
	if x.version.before(56) && c.HostConfig != nil && c.HostConfig.Umask != nil {
		hc := *c.HostConfig
		hc.Umask = nil
		c.HostConfig = &hc
	}
	if x.version.before(45) {
		namedByID(&c)
	}
	if x.version.before(52) {
		return x.reply(http.StatusOK, inspectBefore52(c))
	}
	return x.reply(http.StatusOK, c)
}

// namedByID adds to the aliases on user-defined networks what such a container is
// called there anyway: clients older than 1.45 look for it, and docker-compose 1
// connects anew what does not have it.
func namedByID(c *container.InspectResponse) {
	if c.NetworkSettings == nil {
		return
	}
	for name, ep := range c.NetworkSettings.Networks {
		if !container.NetworkMode(name).IsUserDefined() {
			continue
		}
		ep.Aliases = slices.Clone(ep.Aliases)
		for _, alias := range []string{c.ID[:min(12, len(c.ID))], c.Config.Hostname} {
			if alias != "" && !slices.Contains(ep.Aliases, alias) {
				ep.Aliases = append(ep.Aliases, alias)
			}
		}
	}
}

// legacyInspect is the answer before 1.52, which repeats the bridge's addresses
// at the top of NetworkSettings.
type legacyInspect struct {
	container.InspectResponse
	Config          legacyConfig
	NetworkSettings *legacyNetworkSettings
}

// legacyConfig has OnBuild also when it is empty.
type legacyConfig struct {
	*container.Config
	OnBuild []string
}

type legacyNetworkSettings struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

func inspectBefore52(c container.InspectResponse) legacyInspect {
	out := legacyInspect{InspectResponse: c, Config: legacyConfig{c.Config, c.Config.OnBuild}}
	if c.NetworkSettings == nil {
		return out
	}
	out.NetworkSettings = &legacyNetworkSettings{NetworkSettings: c.NetworkSettings}
	if ep := c.NetworkSettings.Networks[network.NetworkBridge]; ep != nil {
		l := out.NetworkSettings
		l.EndpointID = ep.EndpointID
		l.Gateway = addrText(ep.Gateway)
		l.GlobalIPv6Address = addrText(ep.GlobalIPv6Address)
		l.GlobalIPv6PrefixLen = ep.GlobalIPv6PrefixLen
		l.IPAddress = addrText(ep.IPAddress)
		l.IPPrefixLen = ep.IPPrefixLen
		l.IPv6Gateway = addrText(ep.IPv6Gateway)
		l.MacAddress = ep.MacAddress.String()
	}
	return out
}

func startContainer(x *exchange) error {
	// A host configuration in the body was how clients older than 1.24 worked.
	if x.r.ContentLength > 7 || x.r.ContentLength == -1 {
		return fault.New(fault.Invalid, "", "", "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if x.query("checkpoint") != "" || x.query("checkpoint-dir") != "" {
		return notOffered("start from a checkpoint", "")
	}
	if err := x.api.engine.ContainerStart(x.ctx(), x.path("id"), x.query("detachKeys")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// stopOptions reads what stop and restart share.
func (x *exchange) stopOptions() (o engine.StopOptions, err error) {
	if !x.version.before(42) {
		o.Signal = x.query("signal")
	}
	o.Timeout, err = x.number("t")
	o.Note = func(text string) { x.Header().Set(noticeHeader, text) }
	return o, err
}

// noticeHeader carries what a user would want to know about a request that
// succeeded; docker's clients have no place for it and ignore it.
const noticeHeader = "Berth-Notice"

func stopContainer(x *exchange) error {
	o, err := x.stopOptions()
	if err != nil {
		return err
	}
	if err := x.api.engine.ContainerStop(x.ctx(), x.path("id"), o); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func restartContainer(x *exchange) error {
	o, err := x.stopOptions()
	if err != nil {
		return err
	}
	if err := x.api.engine.ContainerRestart(x.ctx(), x.path("id"), o); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func killContainer(x *exchange) error {
	if err := x.api.engine.ContainerKill(x.ctx(), x.path("id"), x.query("signal")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func pauseContainer(x *exchange) error {
	if err := x.api.engine.ContainerPause(x.ctx(), x.path("id")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func unpauseContainer(x *exchange) error {
	if err := x.api.engine.ContainerUnpause(x.ctx(), x.path("id")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func renameContainer(x *exchange) error {
	if err := x.api.engine.ContainerRename(x.ctx(), x.path("id"), x.query("name")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func removeContainer(x *exchange) error {
	o := engine.RemoveOptions{Force: x.flag("force"), Volumes: x.flag("v"), Link: x.flag("link")}
	if err := x.api.engine.ContainerRemove(x.ctx(), x.path("id"), o); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// removeLink takes the name away that one container has for another.
func removeLink(x *exchange) error {
	name := x.path("id") + "/" + x.path("alias")
	if !x.flag("link") {
		return fault.New(fault.NotFound, "", "", "No such container: %s", name)
	}
	if err := x.api.engine.ContainerRemove(x.ctx(), name, engine.RemoveOptions{Link: true}); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func resizeContainer(x *exchange) error {
	h, w, err := x.consoleSize()
	if err != nil {
		return err
	}
	if err := x.api.engine.ContainerResize(x.ctx(), x.path("id"), h, w); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

// consoleSize reads the size of a terminal in characters.
func (x *exchange) consoleSize() (h, w uint16, err error) {
	if h, err = x.cells("h", "height"); err != nil {
		return 0, 0, err
	}
	w, err = x.cells("w", "width")
	return h, w, err
}

func (x *exchange) cells(key, word string) (uint16, error) {
	n, err := strconv.ParseUint(x.query(key), 10, 32)
	if err != nil || n > math.MaxUint16 {
		return 0, fault.New(fault.Invalid, "", "", "invalid resize %s %q: must be a number from 0 to %d", word, x.query(key), math.MaxUint16)
	}
	return uint16(n), nil
}
