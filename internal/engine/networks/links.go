package networks

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/network"
)

// Links on the default network are from before there were names on networks: the
// other container's address stands in /etc/hosts and, with the ports that it exposes
// and its environment, in variables. They are kept as "ID:ALIAS", so that a rename
// breaks none.

// linked is a running container that another one has a link to.
type linked struct {
	alias string
	rec   *container.Record
	addr  netip.Addr
}

// resolveLinks replaces names by ids in the links of a new container.
func (s *Set) resolveLinks(rec *container.Record) error {
	hc := rec.HostConfig
	if len(hc.Links) == 0 || hc.NetworkMode != bridge {
		return nil
	}
	if s.Manager.Bridge().Isolated {
		return fault.New(fault.Unsupported, "", "", "links while containers on the network bridge are kept apart (--icc=false): not offered by this engine")
	}
	links := make([]string, 0, len(hc.Links))
	for _, l := range hc.Links {
		name, alias := vocabulary.Link(l)
		other, err := s.Containers.Find(name)
		for err == nil && other.Record().HostConfig.NetworkMode.IsContainer() {
			other, err = s.Containers.Find(other.Record().HostConfig.NetworkMode.ConnectedContainer())
		}
		if err != nil {
			return fault.New(fault.Invalid, "", "", "could not get container for %s: %w", name, err)
		}
		if other.Record().HostConfig.NetworkMode.IsHost() {
			return fault.New(fault.Invalid, "", "", "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		links = append(links, other.ID+":"+alias)
	}
	hc.Links = links
	s.links.Store(true)
	return nil
}

// linksOf returns whom a container has links to on the default network, and what is
// wrong with a link to somebody who does not run or is not there.
func (s *Set) linksOf(rec *container.Record) (list []linked, err error) {
	if rec.HostConfig.NetworkMode != bridge {
		return nil, nil
	}
	for _, l := range rec.HostConfig.Links {
		id, alias := vocabulary.Link(l)
		c := s.Containers.Get(id)
		if c == nil || !c.State().Alive() {
			err = fault.New(fault.Conflict, "", "", "Cannot link to a non running container: %s AS /%s/%s", s.nameOf(id), rec.Name, alias)
			continue
		}
		other := linked{alias: alias, rec: c.Record()}
		for _, ep := range s.endpoints(other.rec) {
			if ep.Name == bridge {
				other.addr = ep.IPv4.Addr()
			}
		}
		if !other.addr.IsValid() {
			err = fault.New(fault.Conflict, "", "", "Cannot link to %s, as it does not belong to the default network", s.nameOf(id))
			continue
		}
		list = append(list, other)
	}
	return list, err
}

// nameOf is how links are shown: by a name with a slash, or the id of what is gone.
func (s *Set) nameOf(id string) string {
	if c := s.Containers.Get(id); c != nil {
		return "/" + c.Record().Name
	}
	return "/" + id
}

// Links shows the links of a container as docker does.
func (s *Set) Links(rec *container.Record) []string {
	if rec.HostConfig.NetworkMode != bridge || len(rec.HostConfig.Links) == 0 {
		return rec.HostConfig.Links
	}
	shown := make([]string, 0, len(rec.HostConfig.Links))
	for _, l := range rec.HostConfig.Links {
		id, alias := vocabulary.Link(l)
		shown = append(shown, s.nameOf(id)+":/"+rec.Name+"/"+alias)
	}
	return shown
}

// Unlink takes a link away that is named as docker shows it, /CONTAINER/ALIAS.
func (s *Set) Unlink(ctx context.Context, name string) error {
	parent, alias, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	c, err := s.Containers.Find(parent)
	if err != nil {
		return err
	}
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	hc := *c.Record().HostConfig
	kept := slices.DeleteFunc(slices.Clone(hc.Links), func(l string) bool { _, a := vocabulary.Link(l); return a == alias })
	if hc.NetworkMode != bridge || len(kept) == len(hc.Links) || c.Gone() {
		return fault.New(fault.NotFound, "", "", "No such link: %s", name)
	}
	hc.Links = kept
	next := c.Record().Clone()
	next.HostConfig = &hc
	if err := s.save(next); err != nil {
		return err
	}
	s.refresh(c.Edit(func(rec *container.Record) { rec.HostConfig = &hc }))
	return nil
}

// Relink tells running containers that have links to one which was started where it
// is now.
func (s *Set) Relink(id string) {
	s.lookForLinks.Do(func() {
		for _, c := range s.Containers.All() {
			if hc := c.Record().HostConfig; hc.NetworkMode == bridge && len(hc.Links) > 0 {
				s.links.Store(true)
			}
		}
	})
	if !s.links.Load() {
		return // nearly always
	}
	for _, c := range s.Containers.All() {
		rec := c.Record()
		to := func(l string) bool { other, _ := vocabulary.Link(l); return other == id }
		if rec.State.Alive() && rec.HostConfig.NetworkMode == bridge && slices.ContainsFunc(rec.HostConfig.Links, to) {
			s.refresh(rec)
		}
	}
}

// linkEntries are the lines for a container's links in its /etc/hosts.
func linkEntries(list []linked) (entries []netroom.HostsEntry) {
	for _, l := range list {
		names := []string{l.alias, l.rec.ID[:12]}
		if l.rec.Name != l.alias {
			names = append(names, l.rec.Name)
		}
		entries = append(entries, netroom.HostsEntry{Addr: l.addr, Names: names})
	}
	return entries
}

// LinkVariables are what a container's links are in its environment. Of links to
// what does not run there is nothing.
func (s *Set) LinkVariables(rec *container.Record) []string {
	list, _ := s.linksOf(rec)
	var env []string
	for _, l := range list {
		env = append(env, l.variables("/"+rec.Name+"/"+l.alias)...)
	}
	return env
}

// variables are docker's: the first port, each port, ranges of at least three, the
// name of the link and the other's environment.
func (l *linked) variables(name string) []string {
	prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
	ports := slices.SortedFunc(maps.Keys(l.rec.Config.ExposedPorts), func(a, b network.Port) int {
		if a.Proto() != b.Proto() {
			return strings.Compare(string(a.Proto()), string(b.Proto())) // tcp before udp
		}
		return int(a.Num()) - int(b.Num())
	})
	var env []string
	url := func(p network.Port) string { return string(p.Proto()) + "://" + l.addr.String() + ":" + p.Port() }
	of := func(p network.Port) string {
		return prefix + "_PORT_" + p.Port() + "_" + strings.ToUpper(string(p.Proto()))
	}
	if len(ports) > 0 {
		first := slices.MinFunc(ports, func(a, b network.Port) int { return int(a.Num()) - int(b.Num()) })
		env = append(env, prefix+"_PORT="+url(first))
	}
	for i := 0; i < len(ports); i++ {
		from, to := i, i
		for to+1 < len(ports) && ports[to+1].Proto() == ports[from].Proto() && ports[to+1].Num() == ports[to].Num()+1 {
			to++
		}
		if p, q := ports[from], ports[to]; to > from+1 {
			env = append(env, of(p)+"_START="+url(p), of(p)+"_PORT_START="+p.Port(), of(p)+"_END="+url(q), of(p)+"_PORT_END="+q.Port())
		}
		for i = from; ; i++ {
			p := ports[i]
			env = append(env, of(p)+"="+url(p), of(p)+"_ADDR="+l.addr.String(), of(p)+"_PORT="+p.Port(), of(p)+"_PROTO="+string(p.Proto()))
			if i == to {
				break
			}
		}
	}
	env = append(env, prefix+"_NAME="+name)
	for _, e := range l.rec.Config.Env {
		if key, _, ok := strings.Cut(e, "="); ok && key != "HOME" && key != "PATH" && key != "DEBIAN_FRONTEND" {
			env = append(env, prefix+"_ENV_"+e)
		}
	}
	return env
}
