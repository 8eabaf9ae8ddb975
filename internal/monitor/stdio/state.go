package stdio

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// State is the part of a container's record that changes while it runs. It lies
// in two slots at the beginning of a file, of which the one with the greater
// sequence number and a right checksum counts: a slot is replaced by one small
// write that a kill cannot tear, and never the slot that counts.
type State struct {
	mu   sync.Mutex // guards all below
	fd   int
	seq  uint64
	data Progress
}

// Progress is what State keeps.
type Progress struct {
	Started   bool
	OOM       bool
	Paused    bool
	PID       int
	StartTime uint64 // field 22 of /proc/<pid>/stat
	StartedAt int64  // Unix nanoseconds
	Log       LogProgress
}

// LogProgress says up to where output was logged: the log file had LogSize bytes
// when each stream was logged up to its offset in the spool. The two are always
// written together.
type LogProgress struct {
	Inode    uint64
	Size     int64
	Rotating bool // the file of that inode is being moved out of the way
	Streams  [2]StreamProgress
}

// StreamProgress is one stream's share of LogProgress.
type StreamProgress struct {
	Offset    int64 // of the first byte in the spool that was not logged
	Partial   bool  // the line that goes on there was logged in part
	PartialAt int64 // and began then; Unix nanoseconds

	// Of a log that drops what it cannot keep up with: from Offset up to GapTo
	// lines were given up, GapLines of them, and this is what is logged next.
	// SkipFrom, Skip and Dropped say the same of what follows, found while
	// something else was being logged.
	GapTo, GapLines         int64
	SkipFrom, Skip, Dropped int64
}

const (
	slotSize = 256
	// StateSize is where in the file other things may begin.
	StateSize = 2 * slotSize
)

// NewState starts the state in a new file; Header is what the file has to
// begin with.
func NewState(fd int) *State { return &State{fd: fd, seq: 1} }

// Header returns the two slots of a state that nothing has happened to.
func Header() []byte {
	header := make([]byte, StateSize)
	encodeSlot(header[slotSize:], 1, &Progress{}) // the odd sequence numbers live in the second slot
	return header
}

// LoadState reads the state of a file and goes on with it.
func LoadState(fd int) (*State, error) {
	var slots [StateSize]byte
	if n, err := unix.Pread(fd, slots[:], 0); err != nil || n < len(slots) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, fault.New(fault.Internal, "read container state", "", "%w", err)
	}
	s := &State{fd: fd}
	for i := range 2 {
		if seq, progress, ok := decodeSlot(slots[i*slotSize : (i+1)*slotSize]); ok && seq > s.seq {
			s.seq, s.data = seq, progress
		}
	}
	if s.seq == 0 {
		return nil, fault.New(fault.Internal, "read container state", "", "%w", errState)
	}
	return s, nil
}

var errState = errors.New("no valid slot")

// Get returns the state.
func (s *State) Get() Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data
}

// Update changes the state and writes it down.
func (s *State) Update(change func(*Progress)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.data)
	s.seq++
	var slot [slotSize]byte
	encodeSlot(slot[:], s.seq, &s.data)
	if s.fd < 0 {
		return nil
	}
	if _, err := unix.Pwrite(s.fd, slot[:], int64(s.seq%2)*slotSize); err != nil {
		return fault.New(fault.Internal, "write container state", "", "%w", err)
	}
	return nil
}

// Close closes the file.
func (s *State) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

func encodeSlot(slot []byte, seq uint64, p *Progress) {
	le := binary.LittleEndian
	le.PutUint64(slot[8:], seq)
	le.PutUint64(slot[16:], flags(p.Started, p.OOM, p.Paused, p.Log.Rotating, p.Log.Streams[0].Partial, p.Log.Streams[1].Partial))
	le.PutUint64(slot[24:], uint64(p.PID))
	le.PutUint64(slot[32:], p.StartTime)
	le.PutUint64(slot[40:], uint64(p.StartedAt))
	le.PutUint64(slot[48:], p.Log.Inode)
	le.PutUint64(slot[56:], uint64(p.Log.Size))
	for i, s := range p.Log.Streams {
		le.PutUint64(slot[64+16*i:], uint64(s.Offset))
		le.PutUint64(slot[72+16*i:], uint64(s.PartialAt))
		le.PutUint64(slot[96+40*i:], uint64(s.GapTo))
		le.PutUint64(slot[104+40*i:], uint64(s.GapLines))
		le.PutUint64(slot[112+40*i:], uint64(s.Skip))
		le.PutUint64(slot[120+40*i:], uint64(s.Dropped))
		le.PutUint64(slot[128+40*i:], uint64(s.SkipFrom))
	}
	le.PutUint64(slot[0:], uint64(crc32.ChecksumIEEE(slot[8:slotSize])))
}

func decodeSlot(slot []byte) (seq uint64, p Progress, ok bool) {
	le := binary.LittleEndian
	if le.Uint64(slot[0:]) != uint64(crc32.ChecksumIEEE(slot[8:slotSize])) {
		return 0, p, false
	}
	bits := le.Uint64(slot[16:])
	p.Started, p.OOM, p.Paused, p.Log.Rotating = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
	p.PID = int(le.Uint64(slot[24:]))
	p.StartTime = le.Uint64(slot[32:])
	p.StartedAt = int64(le.Uint64(slot[40:]))
	p.Log.Inode = le.Uint64(slot[48:])
	p.Log.Size = int64(le.Uint64(slot[56:]))
	for i := range p.Log.Streams {
		p.Log.Streams[i] = StreamProgress{
			Offset:    int64(le.Uint64(slot[64+16*i:])),
			PartialAt: int64(le.Uint64(slot[72+16*i:])),
			Partial:   bits&(16<<i) != 0,
			GapTo:     int64(le.Uint64(slot[96+40*i:])),
			GapLines:  int64(le.Uint64(slot[104+40*i:])),
			Skip:      int64(le.Uint64(slot[112+40*i:])),
			Dropped:   int64(le.Uint64(slot[120+40*i:])),
			SkipFrom:  int64(le.Uint64(slot[128+40*i:])),
		}
	}
	return le.Uint64(slot[8:]), p, true
}

func flags(set ...bool) uint64 {
	var bits uint64
	for i, on := range set {
		if on {
			bits |= 1 << i
		}
	}
	return bits
}
