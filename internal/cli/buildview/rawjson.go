package buildview

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"berth/internal/wire"
)

// raw writes BuildKit's status messages, one a line: the form that other programs
// read (moby/buildkit, client.SolveStatus).
type raw struct {
	common
	mu sync.Mutex
}

type rawStatus struct {
	Vertexes []rawVertex  `json:"vertexes,omitempty"`
	Statuses []rawCount   `json:"statuses,omitempty"`
	Logs     []rawLog     `json:"logs,omitempty"`
	Warnings []rawWarning `json:"warnings,omitempty"`
}

type rawVertex struct {
	Digest    string     `json:"digest"`
	Inputs    []string   `json:"inputs,omitempty"`
	Name      string     `json:"name"`
	Started   *time.Time `json:"started,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
	Cached    bool       `json:"cached,omitempty"`
	Error     string     `json:"error,omitempty"`
}

type rawCount struct {
	ID        string    `json:"id"`
	Vertex    string    `json:"vertex"`
	Current   int64     `json:"current"`
	Total     int64     `json:"total,omitempty"`
	Timestamp time.Time `json:"timestamp"`
}

type rawLog struct {
	Vertex    string    `json:"vertex"`
	Stream    int       `json:"stream"`
	Data      []byte    `json:"data"`
	Timestamp time.Time `json:"timestamp"`
}

type rawWarning struct {
	Vertex string   `json:"vertex"`
	Level  int      `json:"level"`
	Short  []byte   `json:"short"`
	Detail [][]byte `json:"detail,omitempty"`
	URL    string   `json:"url,omitempty"`
}

// digestOf names a step as BuildKit would.
func (r *raw) digestOf(id int) string {
	text := strconv.Itoa(id)
	if s := r.m.byID[id]; s != nil {
		text += " " + s.name
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Event implements View.
func (r *raw) Event(e *wire.BuildEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.m.event(e)
	var out rawStatus
	switch {
	case e.Kind == wire.BuildWarning:
		w := rawWarning{Vertex: r.digestOf(0), Level: 1, Short: []byte(e.Rule + ": " + e.Message), URL: e.URL}
		if e.Detail != "" {
			w.Detail = [][]byte{[]byte(e.Detail)}
		}
		out.Warnings = []rawWarning{w}
	case s == nil:
		return
	case e.Kind == wire.BuildOutput:
		out.Logs = []rawLog{{r.digestOf(s.id), e.Stream, e.Data, e.Time}}
	case e.Kind == wire.BuildProgress:
		out.Statuses = []rawCount{{s.name, r.digestOf(s.id), s.current, s.total, e.Time}}
	default:
		v := rawVertex{Digest: r.digestOf(s.id), Name: s.name, Cached: s.state == cached, Error: s.err}
		for _, in := range s.inputs {
			v.Inputs = append(v.Inputs, r.digestOf(in))
		}
		if !s.started.IsZero() {
			v.Started = &s.started
		}
		if !s.finished.IsZero() {
			v.Completed = &s.finished
		}
		out.Vertexes = []rawVertex{v}
	}
	if line, err := json.Marshal(out); err == nil {
		_, _ = r.o.Out.Write(append(line, '\n'))
	}
}

// Sent implements View.
func (r *raw) Sent(int64, bool) {}

// Close implements View.
func (r *raw) Close() {}

// Failure implements View: it was in the events.
func (r *raw) Failure(*wire.BuildEvent) string { return "" }

// Built implements View.
func (r *raw) Built(*wire.Build, []string) {}
