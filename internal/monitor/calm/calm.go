// Package calm makes a long-lived Go process wake up less while it works. The
// runtime's watchdog thread (sysmon) sleeps 20 microseconds at a time for as
// long as any goroutine runs: dozens of context switches for each container
// start, about half of all. Its job, taking processors from blocked system
// calls and preempting, does not need that grain here.
package calm

import (
	"os"
	"strconv"
	"strings"
)

// slack is how much later than asked for the watchdog may wake, in nanoseconds.
const slack = 2_000_000

// Watchdog lets the kernel delay the watchdog's timers. It changes nothing else:
// the timer slack of other threads, which containers would inherit, stays. It
// does nothing where that is not possible.
func Watchdog() {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer dir.Close()
	// The kernel lists threads in the order of their creation, and the runtime
	// creates the watchdog before any other.
	names, err := dir.Readdirnames(2)
	if err != nil || len(names) < 2 || names[0] != strconv.Itoa(os.Getpid()) || strings.HasPrefix(names[1], ".") {
		return
	}
	_ = os.WriteFile("/proc/"+names[1]+"/timerslack_ns", []byte(strconv.Itoa(slack)), 0)
}
