package plan

import (
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions is a parsed list of mount options.
type MountOptions struct {
	Bind, Recursive bool // bind, rbind
	Remount         bool
	CopyUp          bool // tmpcopyup
	IDMap           bool // idmap, ridmap
	IDMapRecursive  bool
	// Subdir is the part of the source that is mounted, resolved without ever
	// leaving the source: X-mount.subdir, as mount(8) calls it.
	Subdir string

	Set, Clear       uint64 // MOUNT_ATTR_* of the mount
	RecSet, RecClear uint64 // the same for the mount and all below it
	Propagation      []Propagation
	SuperFlags       []string // of the file system, as fsconfig knows them
	Data             []string // everything else, for the file system
}

// SubdirOption begins the option whose value is MountOptions.Subdir.
const SubdirOption = "X-mount.subdir="

// Propagation is one change of mount propagation.
type Propagation struct {
	Type      uint64 // MS_PRIVATE and so on
	Recursive bool
}

type attrOption struct {
	name  string
	attr  uint64
	clear bool
}

// attrOptions are the options that are attributes of a mount. Access times are
// one attribute with three values; setting one clears the others.
var attrOptions = [...]attrOption{
	{"ro", unix.MOUNT_ATTR_RDONLY, false}, {"rw", unix.MOUNT_ATTR_RDONLY, true},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, false}, {"suid", unix.MOUNT_ATTR_NOSUID, true},
	{"nodev", unix.MOUNT_ATTR_NODEV, false}, {"dev", unix.MOUNT_ATTR_NODEV, true},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, false}, {"exec", unix.MOUNT_ATTR_NOEXEC, true},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, false}, {"diratime", unix.MOUNT_ATTR_NODIRATIME, true},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, false}, {"symfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, true},
	{"noatime", unix.MOUNT_ATTR_NOATIME, false}, {"atime", unix.MOUNT_ATTR_NOATIME, true},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, false}, {"nostrictatime", unix.MOUNT_ATTR_STRICTATIME, true},
	{"relatime", unix.MOUNT_ATTR_RELATIME, false}, {"norelatime", unix.MOUNT_ATTR_RELATIME, true},
}

var propagations = [...]struct {
	name string
	flag uint64
}{
	{"private", unix.MS_PRIVATE}, {"shared", unix.MS_SHARED}, {"slave", unix.MS_SLAVE}, {"unbindable", unix.MS_UNBINDABLE},
}

// superFlags are the options of a file system that are not handed to its own
// parser.
var superFlags = [...]string{"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand", "silent", "loud", "iversion", "noiversion"}

// PropagationOf translates a propagation's name; ok is false for other words.
func PropagationOf(name string) (p Propagation, ok bool) {
	for _, k := range propagations {
		if name == k.name {
			return Propagation{k.flag, false}, true
		}
		if name == "r"+k.name {
			return Propagation{k.flag, true}, true
		}
	}
	return p, false
}

// ParseMountOptions sorts the options of a mount.
func ParseMountOptions(list []string) MountOptions {
	var o MountOptions
	for _, opt := range list {
		o.parse(opt)
	}
	return o
}

func (o *MountOptions) parse(opt string) {
	switch opt {
	case "bind":
		o.Bind = true
		return
	case "rbind":
		o.Bind, o.Recursive = true, true
		return
	case "remount":
		o.Remount = true
		return
	case "tmpcopyup":
		o.CopyUp = true
		return
	case "idmap":
		o.IDMap = true
		return
	case "ridmap":
		o.IDMap, o.IDMapRecursive = true, true
		return
	case "", "defaults":
		return
	}
	if sub, ok := strings.CutPrefix(opt, SubdirOption); ok {
		o.Subdir = sub
		return
	}
	if p, ok := PropagationOf(opt); ok {
		o.Propagation = append(o.Propagation, p)
		return
	}
	for _, a := range attrOptions {
		if opt == a.name {
			change(&o.Set, &o.Clear, a)
			return
		}
		if len(opt) > 1 && opt[0] == 'r' && opt[1:] == a.name {
			change(&o.RecSet, &o.RecClear, a)
			return
		}
	}
	for _, f := range superFlags {
		if opt == f {
			o.superFlag(f)
			return
		}
	}
	o.Data = append(o.Data, opt)
}

func change(set, clr *uint64, a attrOption) {
	isTime := a.attr&^unix.MOUNT_ATTR__ATIME == 0
	if a.clear {
		*set &^= a.attr
		if isTime {
			*clr |= unix.MOUNT_ATTR__ATIME
		} else {
			*clr |= a.attr
		}
		return
	}
	if isTime {
		*set &^= unix.MOUNT_ATTR__ATIME
		*clr |= unix.MOUNT_ATTR__ATIME
	}
	*set |= a.attr
	*clr &^= a.attr &^ unix.MOUNT_ATTR__ATIME
}

// superFlag records a flag; a negative form takes the positive one back.
func (o *MountOptions) superFlag(f string) {
	negative := map[string]string{"async": "sync", "nolazytime": "lazytime", "nomand": "mand", "loud": "silent", "noiversion": "iversion"}
	positive, ok := negative[f]
	if !ok {
		o.SuperFlags = append(o.SuperFlags, f)
		return
	}
	kept := o.SuperFlags[:0]
	for _, have := range o.SuperFlags {
		if have != positive {
			kept = append(kept, have)
		}
	}
	o.SuperFlags = kept
}

// KnownMountOptions lists all options that are no data, for the features
// command.
func KnownMountOptions() []string {
	l := []string{"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "defaults"}
	for _, a := range attrOptions {
		l = append(l, a.name, "r"+a.name)
	}
	for _, p := range propagations {
		l = append(l, p.name, "r"+p.name)
	}
	return append(l, superFlags[:]...)
}

// rel makes a path of the container relative to its root.
func rel(path string) string { return strings.TrimLeft(path, "/") }
