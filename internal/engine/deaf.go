package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"

	"golang.org/x/sys/unix"
)

// deaf reports whether the kernel drops a signal sent to this process: the first
// of a pid namespace gets only those which it has asked for. One that catches,
// blocks, awaits or has yet to take the signal can act on it. In doubt a process
// is not deaf, as killing one that puts its things in order loses data.
func deaf(rec *container.Record, pid, signal int) bool {
	m := rec.HostConfig.PidMode
	if m.IsHost() || m.IsContainer() || pid == 0 || signal == int(unix.SIGKILL) || signal == int(unix.SIGSTOP) {
		return false
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	// One that is at work is looked at again: it may be an init that is about to
	// await the next signal.
	for range deafLooks {
		text, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil || canAct(string(text), signal) {
			return false // an error: gone already, most likely
		}
		call, err := os.ReadFile(filepath.Join(dir, "syscall"))
		if err != nil {
			return false // a kernel that does not tell
		}
		switch number, _, _ := strings.Cut(strings.TrimSpace(string(call)), " "); {
		case awaits(number):
			return false
		case number != "running":
			return true
		}
		time.Sleep(deafPause)
	}
	return true // it computes, and has asked for nothing
}

// A process is looked at so often before it counts as one that computes.
const (
	deafLooks = 5
	deafPause = 2 * time.Millisecond
)

// awaits reports whether a system call waits for signals by their numbers, as
// docker-init, tini and dumb-init do. Inside of it the kernel shows none of them
// as blocked.
func awaits(number string) bool {
	switch number {
	case strconv.Itoa(unix.SYS_RT_SIGTIMEDWAIT), "177", "421": // the others are those of 32-bit programs
		return true
	}
	return false
}

// canAct looks for a signal in the sets of a process's status that say it will
// reach the process.
func canAct(status string, signal int) bool {
	bit := uint64(1) << (signal - 1)
	for _, line := range strings.Split(status, "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "SigPnd", "ShdPnd", "SigBlk", "SigCgt":
			if set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil || set&bit != 0 {
				return true
			}
		}
	}
	return false
}
