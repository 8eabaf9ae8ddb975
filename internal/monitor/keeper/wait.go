package keeper

import (
	"bytes"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ended is how a process ended.
type ended struct {
	status  int // as wait(2) returns it
	unknown bool
	at      time.Time
}

// The codes of a SIGCHLD.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

const reapOptions = unix.WEXITED | unix.WNOHANG | unix.WALL

// childInfo is siginfo_t as waitid(2) fills it on 64-bit Linux.
type childInfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// peek returns a child that has ended without reaping it; pid 0 says that none
// has, or that there is no such child. which is a pid, 0 for any child.
func peek(which int) (pid, status int) {
	idType := unix.P_PID
	if which == 0 {
		idType = unix.P_ALL
	}
	var info childInfo
	for {
		err := unix.Waitid(idType, which, (*unix.Siginfo)(unsafe.Pointer(&info)), reapOptions|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || info.pid == 0 {
			return 0, 0
		}
		switch info.code {
		case cldExited:
			return int(info.pid), int(info.status&0xff) << 8
		case cldKilled:
			return int(info.pid), int(info.status & 0x7f)
		case cldDumped:
			return int(info.pid), int(info.status&0x7f) | 0x80
		}
		return int(info.pid), 0
	}
}

// reap frees a child that peek has seen.
func reap(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, reapOptions, nil) == unix.EINTR {
	}
}

// statusOfStranger finds out how a process ended that is not our child: it was
// the child of a keeper that died. The kernel tells it of a pidfd since 6.15
// once the process was reaped, and in /proc until then.
func statusOfStranger(pidfd, pid int) (status int, known bool) {
	for range 2 { // it may be reaped between the two questions
		if status, known = statusOfPidfd(pidfd); known {
			return status, true
		}
		if status, known = statusOfZombie(pid); known {
			return status, true
		}
	}
	return 0, false
}

// pidfdInfo is struct pidfd_info in its first size.
type pidfdInfo struct {
	mask     uint64
	_        uint64
	_        [11]uint32
	exitCode int32
}

const (
	pidfdGetInfo  = 3<<30 | 64<<16 | 0xff<<8 | 11 // PIDFD_GET_INFO
	pidfdInfoExit = 1 << 3                        // PIDFD_INFO_EXIT
)

func statusOfPidfd(pidfd int) (status int, known bool) {
	info := pidfdInfo{mask: pidfdInfoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	return int(info.exitCode), errno == 0 && info.mask&pidfdInfoExit != 0
}

// statusOfZombie reads the third and the 52nd field of /proc/<pid>/stat: state
// and exit code.
func statusOfZombie(pid int) (status int, known bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 50 || string(fields[0]) != "Z" {
		return 0, false
	}
	status, err = strconv.Atoi(string(fields[49]))
	return status, err == nil
}

// ExitCode translates a wait(2) status into an exit code as a shell would show
// it, and the signal that ended the process, 0 if none did.
func ExitCode(status int) (code, signal int) {
	if signal = status & 0x7f; signal != 0 {
		return 128 + signal, signal
	}
	return status >> 8 & 0xff, 0
}

// record formats the end of a process as proto.Exit is encoded. It is written
// by hand because encoding/json would double the memory of the keeper.
func (e ended) record(unknownCode int) []byte {
	b := append(make([]byte, 0, 96), `{"code":`...)
	code, signal := ExitCode(e.status)
	if e.unknown {
		code, signal = unknownCode, 0
	}
	b = strconv.AppendInt(b, int64(code), 10)
	if signal != 0 {
		b = append(b, `,"signal":`...)
		b = strconv.AppendInt(b, int64(signal), 10)
	}
	if e.unknown {
		b = append(b, `,"unknown":true`...)
	}
	b = append(b, `,"at":"`...)
	b = e.at.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}')
}

// writeAtomically puts a file in place by renaming.
func writeAtomically(path string, content []byte) error {
	temporary := path + ".new"
	fd, err := unix.Open(temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, content)
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	if err == nil {
		err = unix.Rename(temporary, path)
	}
	return err
}
