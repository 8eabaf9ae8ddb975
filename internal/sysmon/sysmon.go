// Package sysmon calms the Go runtime's background monitor. While a program is
// at work, that thread wakes up every 20 microseconds to look after the
// scheduler, and each wake-up is two context switches: more than half of all
// that a container's start used to cost. The programs here spend their active
// moments in system calls of known, short length, so it may look less often.
package sysmon

import (
	"os"
	"strconv"
	"syscall"
)

// slack is how far the kernel may postpone a wake-up of the monitor, in
// nanoseconds. Above some milliseconds nothing is gained, and a goroutine whose
// neighbour hangs in a system call would wait as long for its turn.
const slack = 5_000_000

// Calm raises the timer slack (prctl(2), PR_SET_TIMERSLACK) of the monitor's
// thread. It fails silently, because nothing but context switches depends on it:
// before Linux 4.6 there is no such file, and without CAP_SYS_NICE it may be out
// of reach.
func Calm() {
	// The monitor is the first thread that the Go runtime makes, and the kernel
	// lists threads in the order of their making.
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	names, err := dir.Readdirnames(2)
	_ = dir.Close()
	if err != nil || len(names) < 2 {
		return
	}
	fd, err := syscall.Open("/proc/"+names[1]+"/timerslack_ns", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = syscall.Write(fd, strconv.AppendInt(nil, slack, 10))
	_ = syscall.Close(fd)
}
