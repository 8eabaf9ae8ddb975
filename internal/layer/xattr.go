package layer

import (
	"strings"

	"golang.org/x/sys/unix"
)

const (
	overlayXattr = "trusted.overlay."
	opaqueXattr  = overlayXattr + "opaque"
	paxXattr     = "SCHILY.xattr." // how tar records name an attribute
	capability   = "security.capability"
)

// xattrRefused reports whether err means that this file system, or this kind of
// file, does not take the attribute, which archives made elsewhere must live
// with. A lost file capability is not lived with: the program would not work.
func xattrRefused(name string, err error) bool {
	return (err == unix.ENOTSUP || err == unix.EPERM) && name != capability
}

// readXattrs returns all attributes of path, not following a symlink.
func readXattrs(path string) (map[string][]byte, error) {
	size, err := unix.Llistxattr(path, nil)
	if err == unix.ENOTSUP || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return nil, err
	}
	xattrs := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, nil)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return nil, err
		}
		value := make([]byte, n)
		if n > 0 {
			if n, err = unix.Lgetxattr(path, name, value); err != nil {
				return nil, err
			}
		}
		xattrs[name] = value[:n]
	}
	return xattrs, nil
}
