// Package gitref reads the addresses of git repositories as ADD and build
// contexts have them. It exists because these addresses come from whoever wrote a
// Dockerfile and end up as arguments of git: everything that git could take for
// an option, a local path or another transport is refused here.
package gitref

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"berth/internal/fault"
)

// Ref is a repository and what of it is wanted.
type Ref struct {
	Remote     string // for git fetch
	Ref        string // branch, tag, commit or refs/...; "" is the default branch
	Subdir     string // clean and relative; "" is all
	Checksum   string // hexadecimal prefix of the commit
	KeepDir    *bool
	Submodules *bool
}

var (
	scpStyle = regexp.MustCompile(`^([a-zA-Z0-9_.][-a-zA-Z0-9_.]*)@([a-zA-Z0-9][-a-zA-Z0-9_.]*):([^:#?][^#?]*)(?:#(.*))?$`)
	refName  = regexp.MustCompile(`^[0-9A-Za-z_][-0-9A-Za-z_./+@]*$`)
	commit   = regexp.MustCompile(`^[0-9a-f]{4,64}$`)
)

// Parse reads an address. ok tells whether s is one at all; a file name or the
// URL of an ordinary file is not. Addresses over http must end in .git.
func Parse(s string) (ref Ref, ok bool, err error) {
	if m := scpStyle.FindStringSubmatch(s); m != nil && !strings.Contains(s, "://") {
		ref.Remote = m[1] + "@" + m[2] + ":" + m[3]
		ref.fragment(m[4])
		return ref, true, ref.check(s)
	}
	scheme, _, found := strings.Cut(s, "://")
	if !found {
		return Ref{}, false, nil
	}
	switch scheme {
	case "http", "https", "ssh", "git":
	default:
		return Ref{}, false, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		if scheme == "http" || scheme == "https" {
			return Ref{}, false, nil
		}
		return Ref{}, true, invalid(s, "%w", err)
	}
	if (scheme == "http" || scheme == "https") && !strings.HasSuffix(u.Path, ".git") {
		return Ref{}, false, nil
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") || u.User != nil && strings.HasPrefix(u.User.Username(), "-") {
		return Ref{}, true, invalid(s, "it names no host")
	}
	fragment, query := u.Fragment, u.Query()
	u.Fragment, u.RawFragment, u.RawQuery = "", "", ""
	ref.Remote = u.String()
	ref.fragment(fragment)
	if err := ref.query(s, query); err != nil {
		return Ref{}, true, err
	}
	return ref, true, ref.check(s)
}

// fragment reads "ref:subdir".
func (r *Ref) fragment(f string) { r.Ref, r.Subdir, _ = strings.Cut(f, ":") }

func (r *Ref) query(s string, q url.Values) error {
	set := func(value string) error {
		if r.Ref != "" && r.Ref != value {
			return invalid(s, "it names both %q and %q", r.Ref, value)
		}
		r.Ref = value
		return nil
	}
	for key, values := range q {
		if len(values) != 1 {
			return invalid(s, "%s is given more than once", key)
		}
		v := values[0]
		var err error
		switch key {
		case "ref":
			err = set(v)
		case "tag":
			err = set("refs/tags/" + strings.TrimPrefix(v, "refs/tags/"))
		case "branch":
			err = set("refs/heads/" + strings.TrimPrefix(v, "refs/heads/"))
		case "subdir":
			r.Subdir = v
		case "checksum", "commit":
			r.Checksum = v
		case "keep-git-dir":
			r.KeepDir, err = boolean(s, key, v)
		case "submodules":
			r.Submodules, err = boolean(s, key, v)
		default:
			err = invalid(s, "unknown parameter %q", key).
				WithHint("known are ref, tag, branch, subdir, checksum, keep-git-dir and submodules")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func boolean(s, key, v string) (*bool, error) {
	b := v == ""
	if !b {
		var err error
		if b, err = strconv.ParseBool(v); err != nil {
			return nil, invalid(s, "%s is neither true nor false", key)
		}
	}
	return &b, nil
}

// check refuses what git could misunderstand, and directories outside the
// repository.
func (r *Ref) check(s string) error {
	if r.Ref != "" && (!refName.MatchString(r.Ref) || strings.Contains(r.Ref, "..") || strings.Contains(r.Ref, "@{")) {
		return invalid(s, "%q cannot be the name of a branch, tag or commit", r.Ref)
	}
	if r.Checksum != "" && !commit.MatchString(r.Checksum) {
		return invalid(s, "checksum %q is not the beginning of a commit", r.Checksum)
	}
	if r.Subdir != "" {
		for part := range strings.SplitSeq(r.Subdir, "/") {
			if part == ".." {
				return invalid(s, "directory %q leads out of the repository", r.Subdir)
			}
		}
		if strings.ContainsRune(r.Subdir, 0) {
			return invalid(s, "directory %q has a zero byte", r.Subdir)
		}
		if r.Subdir = strings.TrimPrefix(path.Clean("/"+r.Subdir), "/"); r.Subdir == "." {
			r.Subdir = ""
		}
	}
	return nil
}

func invalid(s, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "read git address", strconv.Quote(s), format, args...)
}

// OverSSH reports whether a Remote is reached over ssh.
func OverSSH(remote string) bool {
	return strings.HasPrefix(remote, "ssh://") || !strings.Contains(remote, "://")
}
