package container

import (
	"time"

	"golang.org/x/sys/unix"
)

// Tick is the unit in which the kernel tells when a process began (field 22 of
// /proc/PID/stat): USER_HZ is 100 everywhere.
const Tick = 10 * time.Millisecond

// Uptime is the time since the machine booted, sleep included. Nobody can set this
// clock: how long a container has been running is measured by it, because the
// wall clock may jump by hours meanwhile. It returns 0 where there is none.
func Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Began returns the start of the container that runs by what the wall clock shows
// today, which may have been set since.
func (s State) Began() time.Time {
	if s.StartedUp > 0 {
		return time.Now().Add(-s.Ran(time.Time{}))
	}
	return s.StartedAt
}

// Ran returns how long the container has been running, or ran until the wall
// clock's time at: that is looked at only where the start was not seen.
func (s State) Ran(at time.Time) time.Duration {
	if s.StartedUp > 0 {
		return max(0, Uptime()-s.StartedUp)
	}
	return max(0, at.Sub(s.StartedAt))
}
