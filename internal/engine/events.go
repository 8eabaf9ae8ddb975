package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/events"
)

var eventFilters = []string{
	"config", "container", "daemon", "event", "image", "label", "network", "node",
	"plugin", "scope", "secret", "service", "type", "volume",
}

// Events returns what happens from now on, after what happened since a time if
// that is not zero, until ctx ends or a time comes. A reader that is too slow
// misses events; it holds nobody up.
func (e *Engine) Events(ctx context.Context, since, until time.Time, f filter.Set) (<-chan events.Message, error) {
	if err := f.Check(eventFilters...); err != nil {
		return nil, err
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		return nil, fault.New(fault.Invalid, "", "", "`since` time (%d) cannot be after `until` time (%d)", since.Unix(), until.Unix())
	}
	ctx, stop := context.WithCancel(ctx)
	unhook := context.AfterFunc(e.life, stop)
	context.AfterFunc(ctx, func() { unhook() })
	return e.bus.Subscribe(ctx, since, until, func(m *events.Message) bool { return eventMatches(f, m) }), nil
}

// eventMatches applies docker's filters to an event.
func eventMatches(f filter.Set, m *events.Message) bool {
	if len(f) == 0 {
		return true
	}
	return f.Exact("type", string(m.Type)) && f.Exact("scope", m.Scope) &&
		actionMatches(f, string(m.Action)) && f.Labels("label", m.Actor.Attributes) &&
		actorMatches(f, "container", events.ContainerEventType, m) &&
		actorMatches(f, "volume", events.VolumeEventType, m) &&
		actorMatches(f, "network", events.NetworkEventType, m) &&
		actorMatches(f, "daemon", events.DaemonEventType, m) &&
		imageMatches(f, m) &&
		!f.Has("config") && !f.Has("node") && !f.Has("plugin") && !f.Has("secret") && !f.Has("service")
}

// actionMatches also lets "exec_create" stand for "exec_create: command".
func actionMatches(f filter.Set, action string) bool {
	if !f.Has("event") {
		return true
	}
	short, _, _ := strings.Cut(action, ":")
	return f["event"][action] || f["event"][short]
}

func actorMatches(f filter.Set, key string, typ events.Type, m *events.Message) bool {
	if !f.Has(key) {
		return true
	}
	if m.Type != typ {
		return false
	}
	name := m.Actor.Attributes["name"]
	return slices.ContainsFunc(f.Get(key), func(v string) bool {
		return v == name || "/"+name == v || (v != "" && strings.HasPrefix(m.Actor.ID, v))
	})
}

// imageMatches compares images by id and by name, with or without the tag, for
// events of images and of containers made from them.
func imageMatches(f filter.Set, m *events.Message) bool {
	if !f.Has("image") {
		return true
	}
	names := []string{m.Actor.Attributes["image"]}
	if m.Type == events.ImageEventType {
		names = []string{m.Actor.ID, m.Actor.Attributes["name"]}
	}
	for _, n := range names {
		if n == "" {
			continue
		}
		short := n
		if i := strings.LastIndexByte(n, ':'); i > strings.LastIndexByte(n, '/') {
			short = n[:i]
		}
		if f["image"][n] || f["image"][short] {
			return true
		}
	}
	return false
}
