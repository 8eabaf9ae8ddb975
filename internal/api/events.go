package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/engine/filter"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
)

func getEvents(x *exchange) error {
	since, err := x.time("since")
	if err != nil {
		return err
	}
	if x.query("since") != "" && since.IsZero() {
		since = time.Unix(0, 0) // everything that is kept
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
	contentType := x.eventsType()
	x.Header().Set("Content-Type", contentType)
	x.WriteHeader(http.StatusOK)
	x.Flush()
	if err := x.sendEvents(ctx, ch, contentType == types.MediaTypeJSONSequence); err != nil || ctx.Err() != nil {
		x.abort()
	}
	return nil
}

// eventsType picks how events are written: what the client names, and
// else what its version expects.
func (x *exchange) eventsType() string {
	best, weight := types.MediaTypeJSONLines, 0.0
	if x.version.before(52) {
		best = types.MediaTypeJSON
	}
	offers := []string{types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSONSequence}
	for _, accepted := range strings.Split(strings.Join(x.r.Header.Values("Accept"), ","), ",") {
		name, params, err := mime.ParseMediaType(accepted)
		if err != nil || !slices.Contains(offers, name) {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		if q > weight || q == weight && slices.Index(offers, name) < slices.Index(offers, best) {
			best, weight = name, q
		}
	}
	return best
}

// recordSeparator begins each document of a JSON text sequence (RFC 7464).
const recordSeparator = 0x1e

// sendEvents writes one line per event until the channel or the context ends,
// and sends when no further event waits.
func (x *exchange) sendEvents(ctx context.Context, ch <-chan events.Message, sequence bool) error {
	enc := json.NewEncoder(x)
	enc.SetEscapeHTML(false)
	for {
		select {
		case m, ok := <-ch:
			if !ok {
				return nil
			}
			if x.version.before(46) && m.Type == events.ImageEventType && m.Action == events.ActionCreate {
				continue // there were none
			}
			if sequence {
				if _, err := x.Write([]byte{recordSeparator}); err != nil {
					return err
				}
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
