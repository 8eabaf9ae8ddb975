package volume

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"berth/internal/quota"

	"golang.org/x/sys/unix"
)

// CheckOptions refuses options that the local driver does not have: type, device
// and o are mount(8)'s, the first two go together; size bounds a volume whose files
// are in the data directory.
func CheckOptions(opts map[string]string) error {
	for key := range opts {
		switch key {
		case "type", "device", "o":
		case "size":
			if len(opts) > 1 {
				return bad("option size bounds the files of a volume in the data directory, and is of no use beside type, device and o")
			}
			_, err := quota.Size(opts[key])
			return err
		default:
			return bad("invalid option: %q", key)
		}
	}
	typ, device := opts["type"], opts["device"]
	switch {
	case len(opts) == 0:
		return nil
	case typ == "":
		return bad(`missing required option: "type"`)
	case device == "":
		return bad(`missing required option: "device"`)
	}
	o := readMountOptions(typ, opts["o"])
	if (o.flags&unix.MS_BIND != 0 || o.loop) && !path.IsAbs(device) {
		return bad("the device of a volume that is a bind or a loop must be an absolute path: %q", device)
	}
	if typ == "cifs" {
		u, err := url.Parse(device)
		if err != nil {
			return bad("error parsing mount device url: %v", err)
		}
		if u.Port() != "" {
			return bad("port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	return nil
}

// mountFlags are the options of mount(8) that are flags of mount(2).
var mountFlags = map[string]struct {
	clear bool
	flag  uintptr
}{
	"defaults": {}, "rw": {true, unix.MS_RDONLY}, "ro": {false, unix.MS_RDONLY},
	"suid": {true, unix.MS_NOSUID}, "nosuid": {false, unix.MS_NOSUID}, "dev": {true, unix.MS_NODEV}, "nodev": {false, unix.MS_NODEV},
	"exec": {true, unix.MS_NOEXEC}, "noexec": {false, unix.MS_NOEXEC}, "async": {true, unix.MS_SYNCHRONOUS}, "sync": {false, unix.MS_SYNCHRONOUS},
	"dirsync": {false, unix.MS_DIRSYNC}, "atime": {true, unix.MS_NOATIME}, "noatime": {false, unix.MS_NOATIME},
	"diratime": {true, unix.MS_NODIRATIME}, "nodiratime": {false, unix.MS_NODIRATIME}, "relatime": {false, unix.MS_RELATIME},
	"norelatime": {true, unix.MS_RELATIME}, "strictatime": {false, unix.MS_STRICTATIME}, "nostrictatime": {true, unix.MS_STRICTATIME},
	"bind": {false, unix.MS_BIND}, "rbind": {false, unix.MS_BIND | unix.MS_REC},
}

// mountPropagations are those that are changes of propagation.
var mountPropagations = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// mountOptions are the options of a volume as mount(2) wants them.
type mountOptions struct {
	flags       uintptr
	propagation uintptr // MS_PRIVATE unless something else is said
	loop        bool    // the device is a file with a file system in it
	data        []string
}

// readMountOptions splits an option string into the flags of mount(2) and what the
// file system reads itself.
func readMountOptions(typ, text string) mountOptions {
	o := mountOptions{propagation: unix.MS_PRIVATE}
	if typ == "bind" {
		o.flags |= unix.MS_BIND
	}
	for word := range strings.SplitSeq(text, ",") {
		if f, known := mountFlags[word]; known {
			if f.clear {
				o.flags &^= f.flag
			} else {
				o.flags |= f.flag
			}
		} else if p, known := mountPropagations[word]; known {
			o.propagation = p
		} else if word == "loop" {
			o.loop = true
		} else if word != "" {
			o.data = append(o.data, word)
		}
	}
	return o
}

// resolveServer gives the kernel the address of a file server, since it knows no
// names: that of the option addr or, for CIFS without one, in the device.
func resolveServer(typ, device string, data []string) (string, []string, error) {
	i := slices.IndexFunc(data, func(o string) bool { return strings.HasPrefix(o, "addr=") })
	if i >= 0 {
		host := strings.TrimPrefix(data[i], "addr=")
		ip, err := lookUp(host)
		if err == nil {
			data = slices.Clone(data)
			data[i] = "addr=" + ip
		}
		return device, data, err
	}
	if typ != "cifs" {
		return device, data, nil
	}
	u, err := url.Parse(device)
	if err != nil || u.Host == "" {
		return device, data, err
	}
	ip, err := lookUp(u.Host)
	return strings.Replace(device, "//"+u.Host, "//"+ip, 1), data, err
}

func lookUp(host string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	return ip.String(), nil
}

// withoutSecrets is options as they may be shown in an error.
func withoutSecrets(data []string) string {
	shown := slices.Clone(data)
	for i, o := range shown {
		if key, _, _ := strings.Cut(o, "="); key == "password" || key == "pass" || key == "password2" {
			shown[i] = key + "=********"
		}
	}
	return strings.Join(shown, ",")
}

// missingType reports whether the kernel does not know a file system.
func missingType(err error) bool { return errors.Is(err, unix.ENODEV) }
