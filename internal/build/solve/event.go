package solve

import (
	"time"

	"berth/internal/build/graph"
)

// EventKind says what happened.
type EventKind int

// The kinds of events. A vertex is started once, and then is cached, done or
// failed.
const (
	Planned EventKind = iota // known from the beginning: all vertices of a build
	Started                  // it has its turn and runs
	Cached
	Done
	Errored
	Output   // Data from the step's program
	Progress // how far something is
	Warned   // Message about Lines
)

// Event is one thing that happens in a build.
type Event struct {
	Kind   EventKind
	Time   time.Time
	Vertex int    // 1 and up in the order of the graph; 0 for the build itself
	Name   string // of the vertex
	Inputs []int  // vertices, with Planned
	Stage  string
	Lines  graph.Lines

	Stream  int // with Output: 1 or 2
	Data    []byte
	Why     string // with Started: what differs from the closest earlier run; with Cached: where it was found, unless here
	Current int64  // with Progress
	Total   int64
	Send    bool // with Progress of the build itself: something is sent, not fetched
	Message string
	Err     error
}
