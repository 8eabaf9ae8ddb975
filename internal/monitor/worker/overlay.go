package worker

import (
	"os"

	"berth/internal/fault"
	"berth/internal/runtime"

	"golang.org/x/sys/unix"
)

// mountOverlay mounts a root file system for a runtime that wants to find it at
// a path. The new mount interface takes any number of layers.
func mountOverlay(at string, o *runtime.Overlay) error {
	fail := func(err error) error { return fault.New(fault.Internal, "mount root file system", at, "%w", err) }
	if err := os.Mkdir(at, 0o755); err != nil && !os.IsExist(err) {
		return fail(err)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fs)
	for _, layer := range o.Lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", layer); err != nil {
			return fault.New(fault.Internal, "mount root file system", layer, "%w", err)
		}
	}
	if o.Upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", o.Upper); err != nil {
			return fail(err)
		}
		if err := unix.FsconfigSetString(fs, "workdir", o.Work); err != nil {
			return fail(err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fail(err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail(err)
	}
	return nil
}
