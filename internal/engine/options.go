package engine

import (
	"log/slog"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/engine/registries"
	"berth/internal/network"
)

// Config says where an engine lives and what it offers. Several engines with
// different roots and run directories live side by side on one machine.
type Config struct {
	Root          string            // data directory; survives a reboot
	RunDir        string            // run directory; dies with the boot
	RuntimeBinary string            // path of berth-runtime
	Runtimes      map[string]string // further OCI runtimes: name to path of the program
	Labels        []string          // labels of the engine itself, shown by info
	LogMaxSize    int64             // default size of one log file in bytes; 0 means 10 MB
	LogMaxFiles   int               // default number of log files; 0 means 3
	Version       string            // version of this build, shown by info and version
	Commit        string            // source revision of this build
	Debug         bool              // shown by info
	Network       network.Config    // RunDir and DataRoot are filled in
	Registry      registries.Config
	// BuildCacheKeep is how many bytes the cache of builds may have after a
	// build; 0 means no limit.
	BuildCacheKeep int64
	// DiskBudget is how many bytes the data directory may take; images and build
	// cache that nobody uses go before it is passed. 0 means no limit.
	DiskBudget int64
	// DiskBudgetFresh is how long what was used stays in any case; 0 means ten
	// minutes.
	DiskBudgetFresh time.Duration
	Defaults        *ContainerDefaults // nil leaves docker's
	// StopsContainers tells clients that containers end with the engine. It does
	// not do so by itself: see StopAll.
	StopsContainers bool
	Logger          *slog.Logger // nil discards
}

// StopOptions tell how to stop or restart a container.
type StopOptions struct {
	Signal  string // "" means the container's own stop signal
	Timeout *int   // seconds; nil means the container's own, negative waits forever
	// Note, unless nil, is told what a user would want to know about the stop.
	Note func(text string)

	revive bool   // the container is started again
	by     string // who asks; "" is container.ByHand
}

// RemoveOptions tell what to remove with a container.
type RemoveOptions struct {
	Force   bool // kill it first when it runs
	Volumes bool // remove its anonymous volumes too
	Link    bool // remove a link, /CONTAINER/ALIAS, instead
}

// ListOptions select containers.
type ListOptions struct {
	All     bool // not only running ones
	Limit   int  // newest n, running or not; 0 means all
	Size    bool // compute SizeRw and SizeRootFs
	Filters filter.Set
}

// WaitResult is what a wait ends with: the exit code, and the error which kept
// the container from starting or from being removed, if any.
type WaitResult struct {
	StatusCode int64
	Err        error
}

// LogsOptions select log lines.
type LogsOptions struct {
	Stdout, Stderr, Follow bool
	Timestamps, Details    bool
	Since, Until           time.Time // zero means unbounded
	Tail                   string    // "all", "" or a number of lines
}

// AttachOptions describe one attached connection.
type AttachOptions struct {
	Stream, Stdin, Stdout, Stderr, Logs bool
	DetachKeys                          string // "" means ctrl-p,ctrl-q
	Prefix                              []byte // input which was read from the connection already
	Header                              []byte // written to the connection before any output (the 101 answer)
}

// ExecStartOptions tell how to start an exec.
type ExecStartOptions struct {
	Settle      func() // called when the header is written, before the command starts; may be nil
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
	Prefix      []byte   // input which was read from the connection already
	Header      []byte   // written to the connection before any output (the 101 answer)
}
