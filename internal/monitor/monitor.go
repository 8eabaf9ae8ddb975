// Package monitor is the long-lived parent of all containers. It exists so that
// the engine may be stopped, killed and replaced at any instant: whoever writes
// a container's log, holds its terminal and learns its exit code has to stay.
//
// Two processes share the work. The keeper (package keeper) is their parent; it
// holds what cannot be opened again (terminals, the writing ends of standard
// input) and records exit statuses, and does nothing else, so that nothing in
// it can go wrong. The worker (package worker) starts containers, moves their
// output into log files and to attached clients, and answers the engine. Either
// may be killed: the other starts it anew, and the new one takes everything
// over from the keeper's descriptors and the run directory.
//
// This package is the engine's side: a Client.
package monitor

import (
	"path/filepath"

	"berth/internal/monitor/proto"
)

// What the engine and the monitor talk about; see package proto.
type (
	LogConfig      = proto.LogConfig
	StartRequest   = proto.StartRequest
	ExecRequest    = proto.ExecRequest
	AttachRequest  = proto.AttachRequest
	Started        = proto.Started
	Exit           = proto.Exit
	ExecState      = proto.ExecState
	ContainerState = proto.ContainerState
	Event          = proto.Event
)

// The types of events and the log drivers; see package proto.
const (
	EventExit     = proto.EventExit
	EventOOM      = proto.EventOOM
	EventExecExit = proto.EventExecExit
	EventDetach   = proto.EventDetach
	EventLost     = proto.EventLost

	JSONFile = proto.JSONFile
	Local    = proto.Local
	NoLog    = proto.NoLog

	UnknownCode = proto.UnknownCode
)

// Dir returns the monitor's directory below a run directory.
func Dir(runDir string) string { return filepath.Join(runDir, "monitor") }
