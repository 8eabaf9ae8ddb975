package engine

import (
	"os"
	"strconv"
	"sync"
)

// sysmonSlack is by how much the wake-ups of Go's monitor thread may be put off,
// in nanoseconds.
const sysmonSlack = "1000000"

// calmRuntime lets the kernel put off the wake-ups of the thread with which Go's
// run time watches for system calls that block. It wakes up every 20 microseconds
// while anything goes on, so a start that waits for the disk and the monitor had
// more context switches in this thread than in all others together. What is
// lost is that a blocked system call gives up its processor a millisecond later.
//
// The thread is the first one which the run time makes. If that should change,
// some other thread's timers get coarser by a millisecond, which harms nothing.
var calmRuntime = sync.OnceFunc(func() {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	main, first := os.Getpid(), 0
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil && tid != main && (first == 0 || tid < first) {
			first = tid
		}
	}
	if first != 0 {
		// Not offered by every kernel; nothing depends on it.
		_ = os.WriteFile("/proc/"+strconv.Itoa(first)+"/timerslack_ns", []byte(sysmonSlack), 0)
	}
})
