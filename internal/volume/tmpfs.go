package volume

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
)

// tmpfsFlags and tmpfsValues are the options that a tmpfs may be given. The
// others of mount(8) change where things are mounted, not how.
var (
	tmpfsFlags = []string{
		"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
		"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable", "noswap",
	}
	tmpfsValues = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}
)

// tmpfsDefaults apply unless the user says otherwise.
var tmpfsDefaults = []string{"noexec", "nosuid", "nodev"}

// ParseTmpfs reads one entry of docker's tmpfs map: a mount point and
// comma-separated options.
func ParseTmpfs(dst, options string) (Mount, error) {
	if !path.IsAbs(dst) {
		return Mount{}, bad("invalid mount path: '%s' mount path must be absolute", dst)
	}
	clean, err := destination(dst, dst)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Type: mount.TypeTmpfs, Destination: clean, Mode: options}
	var user []string
	if options != "" {
		user = strings.Split(options, ",")
	}
	for _, o := range user {
		key, value, hasValue := strings.Cut(o, "=")
		ok := !hasValue && slices.Contains(tmpfsFlags, key) || hasValue && value != "" && slices.Contains(tmpfsValues, key)
		if !ok {
			return Mount{}, bad(`invalid tmpfs option ["%s"] for %s`, o, dst)
		}
	}
	m.Options = mergeTmpfs(user)
	m.ReadOnly = slices.Contains(user, "ro")
	return m, nil
}

// mergeTmpfs puts the user's options after those defaults which they do not
// contradict.
func mergeTmpfs(user []string) []string {
	out := make([]string, 0, len(user)+len(tmpfsDefaults))
	for _, d := range tmpfsDefaults {
		if !slices.Contains(user, strings.TrimPrefix(d, "no")) && !slices.Contains(user, d) {
			out = append(out, d)
		}
	}
	return append(out, user...)
}

func (m *Mount) readTmpfs(in mount.Mount, wrong wrongf) error {
	switch {
	case in.BindOptions != nil:
		return wrong("field BindOptions must not be specified")
	case in.VolumeOptions != nil:
		return wrong("field VolumeOptions must not be specified")
	case in.ImageOptions != nil:
		return wrong("field ImageOptions must not be specified")
	case in.Source != "":
		return wrong("field Source must not be specified")
	}
	var opts []string
	if in.ReadOnly {
		opts = append(opts, "ro")
	}
	if o := in.TmpfsOptions; o != nil {
		if o.SizeBytes < 0 {
			return wrong("SizeBytes must not be negative")
		}
		if o.SizeBytes > 0 {
			opts = append(opts, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			opts = append(opts, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
		for _, kv := range o.Options {
			if len(kv) != 1 && len(kv) != 2 {
				return wrong("invalid option array length %d in TmpfsOptions.Options", len(kv))
			}
			known := tmpfsFlags
			if len(kv) == 2 {
				known = tmpfsValues
			}
			if !slices.Contains(known, kv[0]) || strings.ContainsRune(strings.Join(kv, ""), ',') {
				return wrong("invalid option: %q", strings.Join(kv, "="))
			}
			opts = append(opts, strings.Join(kv, "="))
		}
	}
	m.Options = mergeTmpfs(opts)
	return nil
}
