package vocabulary

import (
	"strings"

	"berth/internal/quota"
)

// StorageSize reads the options of a container's writable layer: its limit in
// bytes, 0 for none. As in docker, which takes the same one option, a size of 0
// asks for no limit where the engine has a default.
func StorageSize(opts map[string]string) (size int64, err error) {
	for key, value := range opts {
		if strings.ToLower(key) != "size" {
			return 0, invalid("unknown option %q in --storage-opt: there is size", key)
		}
		if size, err = quota.Size(value); err != nil {
			return 0, invalid("--storage-opt %s=%s: %w", key, value, err)
		}
	}
	return size, nil
}

func checkStorage(r *Request) error {
	_, err := StorageSize(r.HostConfig.StorageOpt)
	return err
}
