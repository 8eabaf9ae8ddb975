package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
)

const eventsExample = `  berth events --filter type=container --filter event=die
  berth events --since 10m --until 0s --format json`

func buildEvents(a *app, cmd *cobra.Command) {
	var since, until, layout string
	var filter []string
	cmd.Flags().StringVar(&since, "since", "", "`TIME` begin with what happened then: 10m, 2024-05-01T12:00:00")
	cmd.Flags().StringVar(&until, "until", "", "`TIME` end there instead of going on")
	spec.List(cmd.Flags(), &filter, "filter", "f", "`NAME=VALUE` show those with it: type, event, container, image, label ...")
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json or a Go template")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filters, err := parseFilters(filter)
		if err != nil {
			return err
		}
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		o := client.EventsOptions{Filters: filters}
		now := time.Now()
		if o.Since, err = parseTime("since", since, now); err != nil {
			return err
		}
		if o.Until, err = parseTime("until", until, now); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		var failure error
		err = c.Events(cmd.Context(), o, func(raw json.RawMessage) bool {
			if t.Kind == format.Table {
				_, failure = io.WriteString(a.out, eventLine(raw))
			} else {
				failure = a.printValues(t, withFieldNames(t, raw))
			}
			return failure == nil
		})
		if failure != nil {
			return failure
		}
		return err
	}
}

// withFieldNames gives an event's members the names that templates for docker know
// them by, beside those that they have in JSON.
func withFieldNames(t *format.Template, raw json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	if t.Kind == format.JSON || json.Unmarshal(raw, &members) != nil {
		return raw
	}
	for _, f := range []struct{ name, member, absent string }{
		{"Status", "status", `""`}, {"ID", "id", `""`}, {"From", "from", `""`}, {"Scope", "scope", `""`},
		{"Time", "time", "0"}, {"TimeNano", "timeNano", "0"},
	} {
		if members[f.name] = members[f.member]; members[f.name] == nil {
			members[f.name] = json.RawMessage(f.absent)
		}
	}
	if more, err := json.Marshal(members); err == nil {
		raw = more
	}
	return raw
}

// eventLine writes an event as docker does: time, type, action, id and what else
// is known of it.
func eventLine(raw json.RawMessage) string {
	var e struct {
		Type, Action string
		Actor        struct {
			ID         string
			Attributes map[string]string
		}
		Time     int64 `json:"time"`
		TimeNano int64 `json:"timeNano"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return ""
	}
	at := time.Unix(0, e.TimeNano)
	if e.TimeNano == 0 {
		at = time.Unix(e.Time, 0)
	}
	text := fmt.Sprintf("%s %s %s %s", at.Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
			pairs = append(pairs, name+"="+e.Actor.Attributes[name])
		}
		text += " (" + strings.Join(pairs, ", ") + ")"
	}
	return format.Printable(text) + "\n"
}
