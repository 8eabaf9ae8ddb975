package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/internal/cli/format"
	"berth/internal/wire"
)

// headline says in one line what has become of a container.
func headline(w *wire.Why, now time.Time) string {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return " " + since(t, now) + " ago"
	}
	switch w.Status {
	case "running":
		if w.Health != nil && w.Health.Status != "none" {
			return "has been running for " + since(w.Started, now) + ", " + w.Health.Status
		}
		return "has been running for " + since(w.Started, now)
	case "paused":
		return "is paused; it was started" + ago(w.Started)
	case "created":
		if w.End != nil && w.End.StartFailed {
			return "did not start" + ago(w.End.At)
		}
		return "was created" + ago(w.Created) + " and never started"
	case "restarting":
		if w.End != nil && w.End.StartFailed {
			return "does not start, and is tried again and again"
		}
		return "ended" + ago(w.Finished) + codeText(w) + " and is about to be started again"
	case "removing":
		return "is being removed"
	case "dead":
		return "could not be removed"
	}
	if w.End != nil && w.End.StartFailed {
		return "did not start" + ago(w.End.At)
	}
	return "ended" + ago(w.Finished) + codeText(w)
}

// since is how long ago a time was, in the middle of a sentence.
func since(t, now time.Time) string {
	return strings.Replace(units.HumanDuration(now.Sub(t)), "Less than", "less than", 1)
}

func codeText(w *wire.Why) string {
	if w.End == nil {
		return ""
	}
	if w.End.Signal != "" {
		return fmt.Sprintf(" with code %d (%s)", w.End.Code, w.End.Signal)
	}
	return fmt.Sprintf(" with code %d", w.End.Code)
}

func clock(t, now time.Time) string {
	layout := "2006-01-02 15:04:05"
	if now.Sub(t) < 12*time.Hour {
		layout = "15:04:05"
	}
	return t.Local().Format(layout)
}

func ranText(w *wire.Why, now time.Time) string {
	if w.Started.IsZero() {
		return ""
	}
	if w.Finished.Before(w.Started) {
		return "since " + clock(w.Started, now)
	}
	return fmt.Sprintf("%s, from %s to %s", shortly(w.Finished.Sub(w.Started)), clock(w.Started, now), clock(w.Finished, now))
}

// shortly writes a duration for people.
func shortly(d time.Duration) string {
	switch {
	case d < 0:
		return "?"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return units.HumanDuration(d)
}

// endText says who asked for the end, where the causes do not.
func endText(w *wire.Why) string {
	if w.End == nil || w.End.StartFailed || w.End.Note == "" || w.Causes[0].Kind == wire.WhyAsked {
		return ""
	}
	return format.Printable(w.End.Note)
}

func restartText(w *wire.Why) string {
	r := &w.Restarts
	if r.Policy == "no" {
		return ""
	}
	text := fmt.Sprintf("policy %s, %s since it was started by hand", r.Policy, format.Plural(r.Count, "restart"))
	switch {
	case r.GaveUp:
		text += "; the policy has given up"
	case r.Next:
		text += "; the next one is due"
	}
	return text
}

// beforeText lists the ends before the last one.
func beforeText(w *wire.Why, now time.Time) string {
	var list []string
	for i := range w.Ends[:min(len(w.Ends), 4)] {
		e := &w.Ends[i]
		what := "code " + strconv.Itoa(e.Code)
		switch {
		case e.StartFailed:
			what = "no start"
		case e.OOM:
			what = "out of memory"
		case e.AskedBy == "hand":
			what = "stopped by hand"
		case e.AskedBy != "":
			what = "stopped by its engine"
		case e.Signal != "":
			what = e.Signal
		}
		list = append(list, what+" at "+clock(e.At, now))
	}
	return strings.Join(list, ", ")
}

func healthText(w *wire.Why, now time.Time) string {
	h := w.Health
	if h == nil {
		return ""
	}
	text := h.Status
	if h.Streak > 0 {
		text += fmt.Sprintf(", %s in a row", format.Plural(h.Streak, "failure"))
	}
	var codes []string
	for _, r := range h.Results {
		codes = append(codes, fmt.Sprintf("%s: %d", clock(r.At, now), r.Code))
	}
	if len(codes) > 0 {
		text += "; codes at " + strings.Join(codes, ", ")
	}
	if n := len(h.Results); n > 0 && h.Results[n-1].Code != 0 && w.Causes[0].Kind != wire.WhyUnhealthy {
		if out := oneLine(format.Printable(h.Results[n-1].Output)); out != "" {
			text += "; it said \"" + format.Truncate(out, 120) + "\""
		}
	}
	return text
}

func memoryText(w *wire.Why) string {
	m := &w.Memory
	var parts []string
	if m.Now > 0 {
		parts = append(parts, format.BinaryBytes(m.Now)+" now")
	}
	if m.Peak > 0 {
		parts = append(parts, format.BinaryBytes(m.Peak)+" at most")
	}
	switch {
	case m.Limit > 0:
		parts = append(parts, "limit "+format.BinaryBytes(m.Limit))
	case len(parts) > 0:
		parts = append(parts, "no limit")
	}
	return strings.Join(parts, ", ")
}

func pidsText(w *wire.Why) string {
	if w.Pids == nil || w.Pids.Now == 0 {
		return ""
	}
	if w.Pids.Limit == 0 {
		return strconv.FormatUint(w.Pids.Now, 10)
	}
	return fmt.Sprintf("%d, limit %d", w.Pids.Now, w.Pids.Limit)
}

func pressureText(w *wire.Why) string {
	p := &w.Pressure
	var parts []string
	for _, s := range []struct {
		name  string
		stall *wire.WhyStall
	}{{"cpu", p.CPU}, {"memory", p.Memory}, {"disk", p.IO}} {
		if s.stall != nil {
			parts = append(parts, fmt.Sprintf("%s %.0f%%", s.name, s.stall.Some60))
		}
	}
	text := ""
	switch {
	case len(parts) > 0:
		text = "waited in the last minute: " + strings.Join(parts, ", ")
	case p.Missing != "" && w.Status == "running":
		text = "not known: " + p.Missing
	}
	if t := p.Throttle; t != nil && t.Throttled > 0 {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("held up by its processor limit in %d of %d periods", t.Throttled, t.Periods)
	}
	return text
}
