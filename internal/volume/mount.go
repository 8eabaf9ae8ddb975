// Package volume holds what is mounted into a container besides its root: binds
// of host paths, named and anonymous volumes, images and tmpfs; how users spell
// them, and the store of the volumes' data. It exists so that each spelling (binds,
// mounts, tmpfs maps, the image's volumes) becomes one and the same Mount.
package volume

import (
	"errors"
	"path"
	"path/filepath"
	"strings"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
)

// Mount is one thing mounted into a container besides its root.
type Mount struct {
	Type        mount.Type
	Name        string            `json:",omitempty"` // of the volume, or of the image as the user typed it
	Anonymous   bool              `json:",omitempty"` // the volume was made for this container alone
	Source      string            `json:",omitempty"` // on the host; empty for tmpfs, an image's id
	Destination string            // clean and absolute
	Driver      string            `json:",omitempty"` // of the volume
	Mode        string            `json:",omitempty"` // as the user typed it
	ReadOnly    bool              `json:",omitempty"`
	Propagation mount.Propagation `json:",omitempty"`
	// Implied marks a propagation that nobody asked for: where the host's mount does
	// not allow it, there is none.
	Implied bool `json:",omitempty"`
	// NonRecursive leaves out what is mounted below Source.
	NonRecursive bool `json:",omitempty"`
	// ReadOnlyShallow leaves mounts below Source writable, ReadOnlyForce refuses
	// to start when they can't be made read-only.
	ReadOnlyShallow bool `json:",omitempty"`
	ReadOnlyForce   bool `json:",omitempty"`
	// CreateSource makes a missing source directory, as -v always did.
	CreateSource bool `json:",omitempty"`
	// NoCopy leaves out the files which the image has at Destination.
	NoCopy bool `json:",omitempty"`
	// Labels are those of a volume made by this mount.
	Labels map[string]string `json:",omitempty"`
	// DriverOptions are those of a volume made by this mount.
	DriverOptions map[string]string `json:",omitempty"`
	// Options are the mount options of a tmpfs.
	Options []string `json:",omitempty"`
	// Subpath is what is mounted of a volume or an image; "" means all of it. It is
	// resolved when the mount is made, and never leads out.
	Subpath string `json:",omitempty"`
	// Layers are the diff ids of an image, base first.
	Layers []digest.Digest `json:",omitempty"`
	// Lower are the directories of an image's layers, top first, for whoever mounts
	// them now.
	Lower []string `json:"-"`
	// From marks mounts taken over from another container.
	From string `json:",omitempty"`
}

// destination checks and cleans a mount point.
func destination(spec, dst string) (string, error) {
	switch {
	case dst == "":
		return "", bad("invalid volume specification: '%s': destination must not be empty", spec)
	case !path.IsAbs(dst):
		return "", bad("invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", spec, dst)
	case strings.ContainsRune(dst, 0):
		return "", bad("invalid volume specification: '%q': the mount path holds a zero byte", spec)
	}
	dst = path.Clean(dst)
	if dst == "/" {
		return "", bad("invalid volume specification: '%s': invalid specification: destination can't be '/'", spec)
	}
	return dst, nil
}

// subpath checks the path of a part of a volume or an image. Where it leads is
// decided by whoever opens it.
func subpath(p string) error {
	if p != "" && (!filepath.IsLocal(p) || strings.ContainsRune(p, 0)) {
		return errors.New("subpath must be a relative path within the volume")
	}
	return nil
}

// OfVolume reports whether m mounts the named volume.
func (m *Mount) OfVolume(name string) bool {
	return m.Type == mount.TypeVolume && m.Name == name && name != ""
}

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "", "", format, args...)
}

// CheckName refuses names which can't be a volume's, in docker's words.
func CheckName(name string) error {
	if len(name) == 1 {
		return bad("volume name is too short, names should be at least two alphanumeric characters")
	}
	ok := len(name) >= 2 && len(name) <= 255
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = letter || (i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		return bad(`"%s" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name)
	}
	return nil
}
