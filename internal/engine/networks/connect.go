package networks

import (
	"context"
	"maps"
	"slices"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/metadata"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// NetworkConnect puts a container on a further network, at once when it runs and
// at every start from now on.
func (x *Service) NetworkConnect(ctx context.Context, ref string, req network.ConnectRequest) error {
	s := x.set
	r, c, err := s.both(ctx, ref, req.Container)
	if err != nil {
		return err
	}
	defer c.Unlock()
	rec := c.Record()
	if err := mayConnect(rec, r); err != nil {
		return err
	}
	ep, err := wishedOf(r, req.EndpointConfig)
	if err != nil {
		return err
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	if next.Networks == nil {
		next.Networks = make(map[string]*network.EndpointSettings, 1)
	}
	next.Networks[r.Name] = ep
	if string(rec.HostConfig.NetworkMode) == r.Name {
		next.Disconnected = false
	}
	if rec.State.Alive() {
		if err = s.join(ctx, next, r); err == nil {
			err = s.publish(ctx, next)
		}
	}
	if err == nil {
		err = s.save(next)
	}
	if err != nil {
		if rec.State.Alive() {
			_ = s.Manager.Leave(ctx, rec.ID, r.ID)
			_ = s.publish(ctx, rec)
		}
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks, rec.Disconnected = next.Networks, next.Disconnected })
	s.refresh(next)
	s.tell(events.ActionConnect, r, rec.ID)
	return nil
}

// NetworkDisconnect takes a container off a network.
func (x *Service) NetworkDisconnect(ctx context.Context, ref string, req network.DisconnectRequest) error {
	s := x.set
	r, c, err := s.both(ctx, ref, req.Container)
	if err != nil {
		return err
	}
	defer c.Unlock()
	rec := c.Record()
	switch on := slices.Contains(NamesOf(rec), r.Name); {
	case on && r.Name == network.NetworkHost:
		return fault.New(fault.Forbidden, "", "", "container cannot be disconnected from host network or connected to host network")
	case !on:
		return fault.New(fault.Forbidden, "", "", "container %s is not connected to network %s", rec.ID, r.Name)
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	delete(next.Networks, r.Name)
	next.Disconnected = rec.Disconnected || string(rec.HostConfig.NetworkMode) == r.Name && !userDefined(r.Name)
	if err := s.save(next); err != nil {
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks, rec.Disconnected = next.Networks, next.Disconnected })
	if rec.State.Alive() {
		if err := s.Manager.Leave(ctx, rec.ID, r.ID); err != nil {
			return err
		}
		if err := s.publish(ctx, next); err != nil {
			return err
		}
		s.refresh(next)
	}
	s.tell(events.ActionDisconnect, r, rec.ID)
	return nil
}

// both finds a network and a container, whose lock it takes.
func (s *Set) both(ctx context.Context, netRef, ref string) (*record, *container.Container, error) {
	r, err := s.find(netRef)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.Containers.Find(ref)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Lock(ctx); err != nil {
		return nil, nil, err
	}
	if state := c.State(); c.Gone() || state.Status == "removing" || state.Status == "dead" {
		c.Unlock()
		return nil, nil, fault.New(fault.Conflict, "", "", "Container %s is marked for removal and cannot be connected or disconnected to the network", c.ID)
	}
	return r, c, nil
}

// save commits a container's record.
func (s *Set) save(rec *container.Record) error {
	err := s.DB.Update(func(tx *metadata.Tx) error { return s.Records.Put(tx, rec.ID, *rec) })
	return fault.Wrap("save container", rec.ID, err)
}
