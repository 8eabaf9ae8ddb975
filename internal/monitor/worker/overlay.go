package worker

import (
	"os"

	"berth/internal/fault"
	"berth/internal/overlay"
	"berth/internal/runtime"

	"golang.org/x/sys/unix"
)

// mountOverlay mounts a root file system for a runtime that wants to find it at
// a path.
func mountOverlay(at string, o *runtime.Overlay) error {
	fail := func(err error) error { return fault.New(fault.Internal, "mount root file system", at, "%w", err) }
	if err := os.Mkdir(at, 0o755); err != nil && !os.IsExist(err) {
		return fail(err)
	}
	mnt, err := overlay.Mount(overlay.Stack{Lower: o.Lower, Upper: o.Upper, Work: o.Work}, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail(err)
	}
	return nil
}
