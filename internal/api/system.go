package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"berth/internal/engine/filter"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
)

// systemEngine is what the endpoints about the engine itself call.
type systemEngine interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	Events(ctx context.Context, since, until time.Time, f filter.Set) (<-chan events.Message, error)
}

// ping answers without asking the engine: its headers are what clients
// negotiate by. Builder-Version 1 keeps docker's command line from asking for
// BuildKit.
func ping(x *exchange) error {
	h := x.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if x.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return x.done(http.StatusOK)
	}
	_, _ = x.Write([]byte("OK"))
	return nil
}

func getVersion(x *exchange) error {
	v, err := x.api.engine.Version(x.ctx())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = newest.String(), oldest.String()
	for _, c := range v.Components {
		// docker's command line shows what it finds here, not the fields above.
		if c.Name == "Engine" && c.Details != nil {
			c.Details["ApiVersion"], c.Details["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	return x.reply(http.StatusOK, v)
}

// legacyInfo is the answer before 1.50, with fields that have been constant for
// long and then left.
type legacyInfo struct {
	system.Info
	BridgeNfIptables  bool
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
	ContainerdCommit  legacyCommit
	RuncCommit        legacyCommit
	InitCommit        legacyCommit
}

type legacyCommit struct {
	ID       string
	Expected string `json:",omitempty"`
}

func getInfo(x *exchange) error {
	info, err := x.api.engine.Info(x.ctx())
	if err != nil {
		return err
	}
	if x.version.before(44) {
		for name, rt := range info.Runtimes {
			rt.Status = nil
			info.Runtimes[name] = rt
		}
	}
	if x.version.before(46) {
		info.Containerd = nil
	}
	if x.version.before(49) {
		info.FirewallBackend = nil
	}
	if x.version.before(53) {
		info.NRI = nil
	}
	if !x.version.before(50) {
		return x.reply(http.StatusOK, info)
	}
	info.DiscoveredDevices = nil
	legacy := legacyInfo{Info: info}
	legacy.ContainerdCommit.ID = info.ContainerdCommit.ID
	legacy.RuncCommit.ID = info.RuncCommit.ID
	legacy.InitCommit.ID = info.InitCommit.ID
	if x.version.before(49) {
		legacy.ContainerdCommit.Expected = info.ContainerdCommit.ID
		legacy.RuncCommit.Expected = info.RuncCommit.ID
		legacy.InitCommit.Expected = info.InitCommit.ID
	}
	return x.reply(http.StatusOK, legacy)
}

func getEvents(x *exchange) error {
	since, err := x.time("since")
	if err != nil {
		return err
	}
	until, err := x.time("until")
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return badQuery("until", x.query("until"), "is before since")
	}
	f, err := filter.Parse(x.query("filters"))
	if err != nil {
		return err
	}
	ctx, cancel := x.stream()
	defer cancel()
	ch, err := x.api.engine.Events(ctx, since, until, f)
	if err != nil {
		return err
	}
	contentType := types.MediaTypeJSONLines
	if x.version.before(52) {
		contentType = types.MediaTypeJSON
	}
	x.Header().Set("Content-Type", contentType)
	x.WriteHeader(http.StatusOK)
	x.Flush()
	if err := x.sendEvents(ctx, ch); err != nil || ctx.Err() != nil {
		x.abort()
	}
	return nil
}

// sendEvents writes one line per event until the channel or the context ends,
// and sends when no further event waits.
func (x *exchange) sendEvents(ctx context.Context, ch <-chan events.Message) error {
	enc := json.NewEncoder(x)
	enc.SetEscapeHTML(false)
	for {
		select {
		case m, ok := <-ch:
			if !ok {
				return nil
			}
			if err := enc.Encode(x.event(m)); err != nil {
				return err
			}
			if len(ch) == 0 {
				x.Flush()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// legacyEvent repeats the actor in the fields of 1.21: docker's command line up
// to 25 crashes without them.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// event gives an event the shape of the client's version.
func (x *exchange) event(m events.Message) any {
	if !x.version.before(52) {
		return m
	}
	switch m.Type {
	case events.ContainerEventType:
		return legacyEvent{string(m.Action), m.Actor.ID, m.Actor.Attributes["image"], m}
	case events.ImageEventType:
		return legacyEvent{string(m.Action), m.Actor.ID, "", m}
	}
	return m
}
