package container

import "time"

// Who asked a container to end.
const (
	ByHand     = "hand"     // a client: stop, kill, restart, forced removal
	ByPolicy   = "policy"   // what the container says about being unhealthy
	ByShutdown = "shutdown" // the engine, because it ended itself
)

// keptEndings is how many ends of a container are remembered.
const keptEndings = 8

// Asked is a request to end, kept from then on until the next start.
type Asked struct {
	By     string // ByHand, ByPolicy or ByShutdown
	At     time.Time
	Signal int  `json:",omitempty"` // that was sent; 0: it was killed at once
	Forced bool `json:",omitempty"` // it did not end in time and was killed
}

// Ending is what is remembered of one end of a container, or of a start that
// failed, for those who ask why. It is written with the record of the end.
type Ending struct {
	StartedAt   time.Time `json:",omitzero"`
	At          time.Time
	Code        int
	Signal      int     `json:",omitempty"` // that ended the process
	Pid         int     `json:",omitempty"` // of its first process, on the host
	OOM         bool    `json:",omitempty"`
	Victim      *Victim `json:",omitempty"`
	PeakMemory  int64   `json:",omitempty"` // bytes; 0: not known
	StartFailed bool    `json:",omitempty"` // it never ran
	Lost        bool    `json:",omitempty"` // nobody saw it; Code is made up
	Error       string  `json:",omitempty"`
	Asked       *Asked  `json:",omitempty"` // nil: nobody asked for it
}

// Victim is a process that the kernel killed for lack of memory.
type Victim struct {
	Name string // as the kernel has it, at most 15 bytes
	Pid  int    // on the host
	RSS  int64  // bytes that it held
	Host bool   `json:",omitempty"` // the machine was out of memory, not the container at its limit
}

// remember appends an end, and forgets the oldest.
func (s *State) remember(e Ending) {
	from := max(0, len(s.Ends)+1-keptEndings)
	s.Ends = append(append(make([]Ending, 0, keptEndings), s.Ends[from:]...), e)
}

// LastEnding returns the last end; ok is false when there was none.
func (s State) LastEnding() (Ending, bool) {
	if len(s.Ends) == 0 {
		return Ending{}, false
	}
	return s.Ends[len(s.Ends)-1], true
}
