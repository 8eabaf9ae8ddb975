package engine

import (
	"errors"
	"io/fs"
	"os"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// writeFile replaces a file by rename.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	err := os.WriteFile(tmp, data, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return wrapFS("write", path, err)
}

// wrapFS names the kind of a file system error.
func wrapFS(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	kind := fault.Internal
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		kind = fault.Exhausted
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		kind = fault.Forbidden
	}
	return fault.New(kind, op, subject, "%w", err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
