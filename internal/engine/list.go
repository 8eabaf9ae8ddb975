package engine

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/networks"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// ContainerList returns containers, newest first: the running ones unless the
// options ask for others.
func (e *Engine) ContainerList(ctx context.Context, o ListOptions) ([]api.Summary, error) {
	sel, err := e.newSelection(o)
	if err != nil {
		return nil, err
	}
	out := []api.Summary{}
	names := imageNames{}
	for _, c := range e.containers.All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec := c.Record()
		stop, ok := sel.take(rec)
		if stop {
			break
		}
		if !ok {
			continue
		}
		s := e.summary(ctx, rec, names)
		if o.Size {
			s.SizeRw, s.SizeRootFs = e.sizes(ctx, rec)
		}
		out = append(out, s)
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

// containerFilters are the filters of the list.
var containerFilters = []string{
	"ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation",
	"label", "name", "network", "publish", "since", "status", "volume",
}

// selection is a list's options, resolved.
type selection struct {
	filters       filter.Set
	all           bool
	before, since *container.Record
	exited        map[int]bool
	ancestors     map[string]bool                // image ids
	ports         map[string][]network.PortRange // by filter
	task          bool                           // of a swarm
	beforeSeen    bool
	e             *Engine
}

func (e *Engine) newSelection(o ListOptions) (*selection, error) {
	f := o.Filters
	if err := f.Check(containerFilters...); err != nil {
		return nil, err
	}
	s := &selection{filters: f, e: e, ports: make(map[string][]network.PortRange)}
	s.all = o.All || o.Limit > 0 || f.Has("status")
	var err error
	for key, to := range map[string]**container.Record{"before": &s.before, "since": &s.since} {
		for _, ref := range f.Get(key) {
			c, err := e.containers.Find(ref)
			if err != nil {
				return nil, err
			}
			r := c.Record()
			if *to == nil || (key == "before") == r.Created.Before((*to).Created) {
				*to = r
			}
		}
	}
	for _, v := range f.Get("exited") {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter 'exited=%s'", v)
		}
		if s.exited == nil {
			s.exited = make(map[int]bool)
		}
		s.exited[n] = true
	}
	for _, v := range f.Get("status") {
		if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter 'status=%s'", v)
		}
	}
	for _, v := range f.Get("health") {
		if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter 'health=%s'", v)
		}
	}
	if f.Has("is-task") {
		if s.task, err = f.Bool("is-task", false); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range f.Get(key) {
			r, perr := network.ParsePortRange(v)
			if perr != nil {
				return nil, fault.New(fault.Invalid, "", "", "invalid filter '%s=%s': %v", key, v, perr)
			}
			s.ports[key] = append(s.ports[key], r)
		}
	}
	s.ancestors, err = e.ancestors(f)
	return s, err
}

// ancestors resolves the images named by a filter.
func (e *Engine) ancestors(f filter.Set) (map[string]bool, error) {
	if !f.Has("ancestor") {
		return nil, nil
	}
	ids := make(map[string]bool)
	for _, ref := range f.Get("ancestor") {
		img, err := e.images.Get(context.Background(), ref)
		if fault.Is(err, fault.NotFound) {
			ids[ref] = true // the image may be gone and its name still in a record
			continue
		}
		if err != nil {
			return nil, err
		}
		ids[img.ID.String()] = true
	}
	return ids, nil
}

// take decides about one container; containers come newest first. stop means
// that no older one can match.
func (s *selection) take(rec *container.Record) (stop, ok bool) {
	if s.since != nil && rec.ID == s.since.ID {
		return true, false
	}
	if s.before != nil && !s.beforeSeen {
		s.beforeSeen = rec.ID == s.before.ID
		return false, false
	}
	st := rec.State
	if !s.all && !st.Up() {
		return false, false
	}
	f := s.filters
	switch {
	case !nameMatches(f, rec.Name),
		!idMatches(f, rec.ID),
		!f.Exact("status", string(st.Status)),
		!f.Labels("label", rec.Config.Labels),
		!f.Labels("annotation", rec.HostConfig.Annotations),
		s.exited != nil && (!s.exited[st.ExitCode] || st.Status != api.StateExited),
		s.ancestors != nil && !s.ancestors[rec.ImageID.String()] && !s.ancestors[rec.ImageRef],
		s.task, // there are none
		!f.Exact("health", string(healthOf(st))),
		!s.onNetwork(rec), !mountsVolume(f, rec), !s.hasPorts(rec):
		return false, false
	}
	return false, true
}

// nameMatches looks for each value as a pattern in the name with its slash, so
// that "^/web$" means exactly web. A value which is no pattern is looked for as it
// stands.
func nameMatches(f filter.Set, name string) bool {
	if !f.Has("name") || f["name"][name] || f["name"]["/"+name] {
		return true
	}
	for v := range f["name"] {
		if strings.Contains("/"+name, v) {
			return true
		}
		if re, err := regexp.Compile(v); err == nil && (re.MatchString("/"+name) || re.MatchString(name)) {
			return true
		}
	}
	return false
}

func healthOf(s container.State) api.HealthStatus {
	if s.Health == nil {
		return api.NoHealthcheck
	}
	return s.Health.Status
}

func idMatches(f filter.Set, id string) bool {
	if !f.Has("id") {
		return true
	}
	return slices.ContainsFunc(f.Get("id"), func(v string) bool { return v != "" && strings.HasPrefix(id, v) })
}

// onNetwork matches the network's name, its id or a prefix of it.
func (s *selection) onNetwork(rec *container.Record) bool {
	if !s.filters.Has("network") {
		return true
	}
	names := networks.NamesOf(rec)
	if mode := rec.HostConfig.NetworkMode; mode.IsContainer() {
		names = append(names, string(mode))
	}
	return slices.ContainsFunc(names, func(name string) bool {
		id := s.e.nets.ID(name)
		return slices.ContainsFunc(s.filters.Get("network"), func(v string) bool {
			return v == name || (v != "" && id != "" && strings.HasPrefix(id, v))
		})
	})
}

func mountsVolume(f filter.Set, rec *container.Record) bool {
	if !f.Has("volume") {
		return true
	}
	want := f.Get("volume")
	for _, m := range mountPoints(rec) {
		if m.Type == mount.TypeVolume && slices.Contains(want, m.Name) || slices.Contains(want, m.Destination) || (m.Type == mount.TypeBind && slices.Contains(want, m.Source)) {
			return true
		}
	}
	return false
}

// hasPorts matches exposed and published ports against ranges.
func (s *selection) hasPorts(rec *container.Record) bool {
	in := func(key string, has func(network.Port) bool) bool {
		if len(s.ports[key]) == 0 {
			return true
		}
		for _, r := range s.ports[key] {
			for p := range r.All() {
				if has(p) {
					return true
				}
			}
		}
		return false
	}
	return in("expose", func(p network.Port) bool { _, ok := rec.Config.ExposedPorts[p]; return ok }) &&
		in("publish", func(p network.Port) bool { return publishes(s.e.nets.Ports(rec), p) })
}

// publishes reports whether a port of the host leads to a container.
func publishes(ports network.PortMap, p network.Port) bool {
	for have, bindings := range ports {
		for _, b := range bindings {
			if b.HostPort == p.Port() && have.Proto() == p.Proto() {
				return true
			}
		}
	}
	return false
}

// summary describes a container in a list.
func (e *Engine) summary(ctx context.Context, rec *container.Record, names imageNames) api.Summary {
	s := api.Summary{
		ID:      rec.ID,
		Names:   []string{"/" + rec.Name},
		Image:   names.of(ctx, e, rec),
		ImageID: rec.ImageID.String(),
		Command: commandLine(rec),
		Created: rec.Created.Unix(),
		Ports:   portSummary(e.nets.Ports(rec)),
		Labels:  rec.Config.Labels,
		State:   rec.State.Status,
		Status:  rec.State.Describe(time.Now()),
		Health:  &api.HealthSummary{Status: api.NoHealthcheck},
		Mounts:  mountPoints(rec),
		NetworkSettings: &api.NetworkSettingsSummary{
			Networks: e.nets.Of(rec),
		},
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if h := rec.State.Health; h != nil {
		s.Health = &api.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	s.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	s.HostConfig.Annotations = rec.HostConfig.Annotations
	return s
}

// imageNames remembers which image a name means now, for the time of a list:
// most containers share theirs.
type imageNames map[string]string

// of returns the name under which the user asked for a container's image, or its
// id when that name means another image by now.
func (n imageNames) of(ctx context.Context, e *Engine, rec *container.Record) string {
	id, known := n[rec.ImageRef]
	if !known {
		if img, err := e.images.Get(ctx, rec.ImageRef); err == nil {
			id = img.ID.String()
		}
		n[rec.ImageRef] = id
	}
	if id == "" || id == rec.ImageID.String() {
		return rec.ImageRef
	}
	return rec.ImageID.String()
}

// commandLine quotes arguments with spaces, as docker does.
func commandLine(rec *container.Record) string {
	line := rec.Path
	for _, arg := range rec.Args {
		if strings.Contains(arg, " ") {
			arg = "'" + arg + "'"
		}
		line += " " + arg
	}
	return line
}

// sizes returns the bytes of the writable layer and of the whole root.
func (e *Engine) sizes(ctx context.Context, rec *container.Record) (rw, root int64) {
	rw, err := e.layers.WritableSize(rec.ID)
	if err != nil {
		e.log.Debug("measure a writable layer", "container", rec.ID, "error", err)
	}
	root = rw
	if img, err := e.images.Get(ctx, rec.ImageID.String()); err == nil {
		root += img.Size
	}
	return rw, root
}
