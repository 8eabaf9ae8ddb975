package wire

import "time"

// Kinds of causes in a WhyCause.
const (
	WhyFine       = "fine"        // it runs and nothing speaks against it
	WhyFinished   = "finished"    // its program ended by itself with code 0
	WhyNever      = "never"       // it was made and never started
	WhyPaused     = "paused"      // it is frozen
	WhyDead       = "dead"        // its removal failed
	WhyAsked      = "asked"       // somebody asked it to end; Subject says who: hand, policy, shutdown
	WhyOOM        = "oom"         // killed for lack of memory at its own limit; Subject is the process
	WhyHostOOM    = "host-oom"    // killed because the machine had no memory left; Subject is the process
	WhyKilled     = "killed"      // SIGKILL from somewhere else
	WhySignal     = "signal"      // ended by a signal; Subject is its name
	WhyLost       = "lost"        // nobody saw the end; Subject is boot or monitor
	WhyNoShell    = "no-input"    // a shell or interpreter that read the end of its input
	WhyExit       = "exit"        // its program chose a code other than 0; Subject is the code
	WhyNotFound   = "not-found"   // the program does not exist; Subject names it, Candidates what might be meant
	WhyLoader     = "interpreter" // the script's interpreter or the program's loader is missing; Subject names it
	WhyCRLF       = "crlf"        // a script with Windows line ends; Subject names it
	WhyPlatform   = "platform"    // built for another processor; Subject names the program, Other the platform
	WhyExecutable = "executable"  // the file is no program, or not marked as one; Subject names it
	WhyPort       = "port"        // a port is taken; Subject names it, Other who has it
	WhyMount      = "mount"       // what is to be mounted is not there
	WhyConfig     = "config"      // what its configuration names is not there; Subject names it, Other says what it is
	WhyPartner    = "partner"     // the container whose namespace it shares does not run; Subject is its name, Other its state, "" when it is gone
	WhyStart      = "start"       // the start failed for another reason; Evidence tells
	WhyPermission = "permission"  // a file may not be used by the container's user
	WhyDenied     = "denied"      // the kernel or a security module said no; Subject is seccomp, capability (Other names it), apparmor or ""
	WhyReadOnly   = "read-only"   // it wanted to write where it may not
	WhyDisk       = "disk"        // no room left on a disk
	WhyProcesses  = "processes"   // the limit of processes
	WhyFiles      = "files"       // the limit of open files
	WhyMemory     = "memory"      // it runs close to its limit, or ran out of a heap of its own
	WhyNetwork    = "network"     // a name or a peer could not be reached
	WhyUnhealthy  = "unhealthy"   // its health check fails
	WhyLoop       = "loop"        // its restart policy starts it again and again
	WhyThrottled  = "throttled"   // its processor limit holds it up
)

// How sure a cause is.
const (
	WhyCertain = "certain" // somebody saw it happen
	WhyLikely  = "likely"  // what was seen fits nothing else that is common
	WhyGuess   = "guess"   // words in its output, or the like
)

// Why is the answer of GET /berth/containers/{id}/why: what an engine knows of how
// a container ended, why it does not start, or how it fares. Sizes are bytes.
type Why struct {
	ID, Name, Image string
	Command         []string
	User            string    `json:",omitempty"`
	Status          string    // docker's word: created, running, paused, restarting, exited, removing, dead
	Created         time.Time //
	Started         time.Time `json:",omitzero"` // of the last run
	Finished        time.Time `json:",omitzero"`
	Tty             bool      `json:",omitempty"`

	Causes []WhyCause // the most likely first; never empty

	End      *WhyEnd      `json:",omitempty"` // the last end or failed start; nil when there was none
	Ends     []WhyEnd     `json:",omitempty"` // the ones before, the newest first
	Memory   WhyMemoryUse //
	Pids     *WhyCount    `json:",omitempty"` // of a running container
	Health   *WhyHealth   `json:",omitempty"`
	Pressure WhyPressure
	Restarts WhyRestarts
	Log      WhyLog
	Kernel   []string `json:",omitempty"` // what the kernel wrote about it
}

// WhyCause is one thing that may explain the state of a container.
type WhyCause struct {
	Kind       string   // one of the kinds
	Sure       string   // WhyCertain, WhyLikely or WhyGuess
	Subject    string   `json:",omitempty"`
	Other      string   `json:",omitempty"`
	Evidence   string   `json:",omitempty"` // a line of its log or of the kernel's, or an error
	Candidates []string `json:",omitempty"` // what might have been meant
}

// WhyEnd is one end of a container, or a start that failed.
type WhyEnd struct {
	Started     time.Time `json:",omitzero"`
	At          time.Time `json:",omitzero"`
	Code        int
	Signal      string `json:",omitempty"` // that ended the process, or that the code stands for
	BySignal    bool   `json:",omitempty"` // the kernel says so; else it is the code alone
	OOM         bool   `json:",omitempty"`
	StartFailed bool   `json:",omitempty"`
	Error       string `json:",omitempty"`

	AskedBy     string    `json:",omitempty"` // hand, policy, shutdown
	AskedAt     time.Time `json:",omitzero"`
	AskedSignal string    `json:",omitempty"`
	Forced      bool      `json:",omitempty"` // it did not end in time and was killed
	Note        string    `json:",omitempty"` // what is worth knowing of the stop
}

// WhyMemoryUse is what a container had and used.
type WhyMemoryUse struct {
	Limit  int64      `json:",omitempty"` // 0: none
	Now    int64      `json:",omitempty"` // while it runs
	Peak   int64      `json:",omitempty"` // of the last run; 0: not known
	Victim *WhyVictim `json:",omitempty"`
}

// WhyVictim is the process that the kernel killed.
type WhyVictim struct {
	Name string
	Pid  int // on the host
	RSS  int64
}

// WhyCount is a number with its limit, 0 for none.
type WhyCount struct{ Now, Limit uint64 }

// WhyHealth is what the last health checks said, the newest last.
type WhyHealth struct {
	Status  string
	Streak  int
	Test    []string
	Action  string `json:",omitempty"` // what happens to an unhealthy container: restart, stop
	Results []WhyProbe
}

// WhyProbe is one health check.
type WhyProbe struct {
	At     time.Time
	Took   time.Duration
	Code   int // -1: it could not be run, or took too long
	Output string
}

// WhyPressure is how long the processes of a container waited, as shares of the
// time in percent. Missing says why there are no figures.
type WhyPressure struct {
	Missing         string       `json:",omitempty"`
	CPU, Memory, IO *WhyStall    `json:",omitempty"`
	Throttle        *WhyThrottle `json:",omitempty"`
}

// WhyStall is how often some, or all, of the processes waited for a resource.
type WhyStall struct {
	Some10, Some60, Full10, Full60 float64
	Total                          time.Duration // that some of them waited, of the whole run
}

// WhyThrottle is how often a processor limit was met.
type WhyThrottle struct{ Periods, Throttled uint64 }

// WhyRestarts is what the restart policy did and will do.
type WhyRestarts struct {
	Policy string // docker's form: no, always, unless-stopped, on-failure[:n]
	Count  int    // since the last start by hand
	Next   bool   `json:",omitempty"` // it is about to start again
	GaveUp bool   `json:",omitempty"` // on-failure has no tries left
}

// WhyLog is the end of what a container wrote.
type WhyLog struct {
	Lines   []string
	Missing string `json:",omitempty"` // why there is nothing to read
}
