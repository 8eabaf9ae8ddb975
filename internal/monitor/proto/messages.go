// Package proto is what the engine and the monitor say to each other: the
// messages, their frames on a unix stream socket, and how an error keeps its
// kind on the way. It is a package of its own because both the client, linked
// into the engine, and the worker need it, and neither may import the other.
package proto

import (
	"time"

	"berth/internal/runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Version is the protocol's version. An engine refuses to talk to a monitor of
// another one, because the monitor outlives upgrades of the engine.
const Version = 1

// What the monitor writes itself. An empty driver is JSONFile. Drivers that send
// lines away are the engine's affair: it reads what Local keeps.
const (
	JSONFile = "json-file"
	Local    = "local"
	NoLog    = "none"
)

// LogConfig says where a container's output is kept.
type LogConfig struct {
	Driver   string            `json:"driver,omitempty"`   // JSONFile, the default, Local or NoLog
	Path     string            `json:"path,omitempty"`     // the log file; rotated ones get .1, .2, ...
	MaxSize  int64             `json:"maxSize,omitempty"`  // bytes of one file; 0 takes the default, -1 is unlimited
	MaxFiles int               `json:"maxFiles,omitempty"` // files kept, the current one included; 0 takes the default
	Attrs    map[string]string `json:"attrs,omitempty"`    // written with every line
	Compress bool              `json:"compress,omitempty"` // rotated files are compressed
	// Buffer is how many bytes of a stream may wait to be logged; the oldest lines are
	// dropped then, and counted. 0 lets the container wait instead.
	Buffer int64 `json:"buffer,omitempty"`
}

// StartRequest starts a container. ID and Spec are required.
type StartRequest struct {
	ID        string           `json:"id"`
	Token     string           `json:"token,omitempty"` // names this very start, so that asking again does not start twice; the client fills it in
	Spec      *specs.Spec      `json:"-"`
	SpecJSON  []byte           `json:"-"` // the encoded form of Spec, if the caller has it at hand
	Overlay   *runtime.Overlay `json:"overlay,omitempty"`
	OpenStdin bool             `json:"openStdin,omitempty"`
	StdinOnce bool             `json:"stdinOnce,omitempty"` // standard input ends with the first client that had it
	Log       LogConfig        `json:"log"`
	// Runtime is the path of a foreign OCI runtime that is used through its
	// command line; "" is the built-in one.
	Runtime     string   `json:"runtime,omitempty"`
	RuntimeArgs []string `json:"runtimeArgs,omitempty"` // global flags of the foreign runtime
}

// ExecRequest runs a further process in a running container.
type ExecRequest struct {
	ContainerID string         `json:"id"`
	ExecID      string         `json:"exec"`
	Token       string         `json:"token,omitempty"` // as in StartRequest
	Process     *specs.Process `json:"process"`
	OpenStdin   bool           `json:"openStdin,omitempty"`
}

// Started tells of a process that runs.
type Started struct {
	PID int       `json:"pid"` // on the host
	At  time.Time `json:"at"`
}

// AttachRequest connects a client to a process, which may not have been started
// yet. ExecID "" is the container's own process.
type AttachRequest struct {
	ContainerID string `json:"id"`
	ExecID      string `json:"exec,omitempty"`
	Stdin       bool   `json:"stdin,omitempty"`
	Stdout      bool   `json:"stdout,omitempty"`
	Stderr      bool   `json:"stderr,omitempty"`
	DetachKeys  []byte `json:"detachKeys,omitempty"` // typed in sequence they end the connection; empty: never
	Prefix      []byte `json:"prefix,omitempty"`     // sent to the client first, unframed
}

// Target names a process: the container's own when ExecID is "".
type Target struct {
	ID     string `json:"id"`
	ExecID string `json:"exec,omitempty"`
}

// SignalRequest sends a signal to a process.
type SignalRequest struct {
	Target
	Signal int  `json:"signal"`
	Group  bool `json:"group,omitempty"` // also to the others in the process group that it leads
}

// ResizeRequest sets the size of a process's terminal, in characters.
type ResizeRequest struct {
	Target
	Height uint16 `json:"height"`
	Width  uint16 `json:"width"`
}

// UpdateRequest changes a container's limits.
type UpdateRequest struct {
	ID        string                `json:"id"`
	Resources *specs.LinuxResources `json:"resources"`
}

// Exit says how a process ended.
type Exit struct {
	Code      int       `json:"code"`             // exit code; 128 + Signal when a signal ended it; UnknownCode when Unknown
	Signal    int       `json:"signal,omitempty"` // the signal that ended it
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
	Unknown   bool      `json:"unknown,omitempty"` // it ended while nobody could see how
	// PeakMemory is the most that the container used at any time, in bytes; 0 when
	// that is not known, as of an exec.
	PeakMemory int64 `json:"peakMemory,omitempty"`
}

// UnknownCode is the exit code of a process whose end nobody saw.
const UnknownCode = 255

// ExecState describes an exec that the monitor knows.
type ExecState struct {
	ID        string    `json:"id"`
	PID       int       `json:"pid,omitempty"`
	StartedAt time.Time `json:"startedAt"`
	Exited    bool      `json:"exited,omitempty"`
	Exit      *Exit     `json:"exit,omitempty"`
}

// ContainerState describes a container that the monitor knows: one that runs,
// or one that ended and was not forgotten yet.
type ContainerState struct {
	ID        string      `json:"id"`
	PID       int         `json:"pid,omitempty"` // on the host
	StartTime uint64      `json:"startTime,omitempty"`
	StartedAt time.Time   `json:"startedAt"`
	Exited    bool        `json:"exited,omitempty"`
	Exit      *Exit       `json:"exit,omitempty"` // set when Exited
	Paused    bool        `json:"paused,omitempty"`
	Execs     []ExecState `json:"execs,omitempty"`
}

// The types of events.
const (
	EventExit     = "exit"      // a container ended; all its output is in the log
	EventOOM      = "oom"       // the kernel killed a process of it for lack of memory
	EventExecExit = "exec-exit" // an exec ended
	EventDetach   = "detach"    // a client typed its detach keys
	EventLost     = "lost"      // events may have been missed: ask for the list again
)

// Event is something that happened to a container.
type Event struct {
	Type   string `json:"type"`
	ID     string `json:"id,omitempty"`
	ExecID string `json:"exec,omitempty"`
	Exit   *Exit  `json:"exit,omitempty"` // of exit and exec-exit
}

// Hello opens a connection, from both sides.
type Hello struct {
	Version int `json:"version"`
	PID     int `json:"pid"`
}
