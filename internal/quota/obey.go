package quota

import (
	"runtime"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Obey calls a function that writes where a limit may be, and has the limit hold for
// it: ext4 looks away when root writes (CAP_SYS_RESOURCE). What the function has
// other goroutines do is not covered.
func Obey(write func() error) error {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, has [2]unix.CapUserData
	err := unix.Capget(&header, &had[0])
	if has = had; err == nil {
		has[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		err = unix.Capset(&header, &has[0])
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fault.Wrap("give up a capability", "", err)
	}
	// A thread that cannot have it back stays locked, and ends with its goroutine.
	defer func() {
		if unix.Capset(&header, &had[0]) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return write()
}
