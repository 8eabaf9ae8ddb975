package engine

import (
	"errors"
	"io/fs"
	"os"

	"berth/internal/fault"
)

// writeFile replaces a file by rename.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	err := os.WriteFile(tmp, data, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return fault.Wrap("write", path, err)
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
