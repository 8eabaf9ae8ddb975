package layer

import (
	"fmt"
	"strconv"
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

// procPath names an open file for system calls that take no O_PATH descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// clearXattrs removes the attributes of an open file, but for overlayfs' own.
func clearXattrs(fd int) error {
	names, err := listXattrs(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, overlayXattr) || strings.HasPrefix(name, "security.") && name != capability {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
			return fmt.Errorf("remove attribute %q: %w", name, err)
		}
	}
	return nil
}

// listXattrs returns the names that list fills in.
func listXattrs(list func([]byte) (int, error)) ([]string, error) {
	buf := make([]byte, 256)
	for {
		n, err := list(buf)
		switch {
		case err == unix.ERANGE && len(buf) < xattrMost:
			buf = make([]byte, xattrMost)
		case err == unix.ENOTSUP || err == nil && n == 0:
			return nil, nil
		case err != nil:
			return nil, err
		default:
			return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
		}
	}
}

// getXattr returns the value that get fills in.
func getXattr(name string, get func(string, []byte) (int, error)) (string, error) {
	buf := make([]byte, 128)
	n, err := get(name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, xattrMost)
		n, err = get(name, buf)
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// The names of attributes stand in keys of tar records, which end with "=".
// GNU tar escapes that, and what would look like an escape.
func escapeXattr(name string) string {
	if !strings.Contains(name, "=") && !escaped(name) {
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "%", "%25"), "=", "%3D")
}

func unescapeXattr(name string) string {
	if !escaped(name) {
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "%3D", "="), "%25", "%")
}

func escaped(name string) bool { return strings.Contains(name, "%3D") || strings.Contains(name, "%25") }

// readXattrs returns all attributes of path, not following a symlink.
func readXattrs(path string) (map[string][]byte, error) {
	names, err := listXattrs(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if len(names) == 0 {
		return nil, err
	}
	xattrs := map[string][]byte{}
	for _, name := range names {
		value, err := getXattr(name, func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return nil, err
		}
		xattrs[name] = []byte(value)
	}
	return xattrs, nil
}
