// Package identity turns what a user or an image says about the user of a
// process ("www", "1000:users", "0") into numbers, with the image's own
// /etc/passwd and /etc/group. It exists apart because those files are hostile
// input: they are read within fixed bounds, and a number is never looked up as a
// name, so no line in them can make "1000" mean root.
package identity

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"berth/internal/container/rootview"
	"berth/internal/fault"
)

// Bounds of what is read. Real files are a few kilobytes.
const (
	maxFile   = 16 << 20 // bytes
	maxLine   = 1 << 20  // bytes; a group with very many members
	maxGroups = 65536    // what the kernel allows one process
	maxID     = 1<<31 - 1
)

// Identity is the user of a process.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, GID included
	Name     string   // of the user; "" when /etc/passwd has none
	Home     string
}

// Files gives access to the image's user database. Either may fail with
// fault.NotFound.
type Files struct {
	Passwd func() (io.ReadCloser, error)
	Group  func() (io.ReadCloser, error)
}

// InLayers is Resolve with the files of a stack of layer directories, top first.
func InLayers(layers []string, spec string, extra []string) (Identity, error) {
	view, err := rootview.Open(layers)
	if err != nil {
		return Identity{}, err
	}
	defer view.Close()
	open := func(path string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return view.OpenFile(path, maxFile) }
	}
	return Resolve(spec, extra, Files{Passwd: open("/etc/passwd"), Group: open("/etc/group")})
}

// user is one line of passwd.
type user struct {
	name, home string
	uid, gid   uint32
}

// Resolve finds the identity for a user specification (name, uid, name:group,
// uid:gid, in any mix; "" is uid 0) with additional groups by name or number.
func Resolve(spec string, extra []string, files Files) (Identity, error) {
	userPart, groupPart, hasGroup := strings.Cut(spec, ":")
	if hasGroup && groupPart == "" {
		hasGroup = false
	}
	u, err := findUser(userPart, files)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{UID: u.uid, GID: u.gid, Name: u.name, Home: u.home}
	if id.Home == "" {
		id.Home = "/"
	}
	want := groupQuery{primary: groupPart, hasPrimary: hasGroup, extra: extra, member: u.name}
	if err := want.find(files); err != nil {
		return Identity{}, err
	}
	if hasGroup {
		id.GID = want.gid
	}
	id.Groups = append(id.Groups, id.GID)
	for _, g := range append(want.memberOf, want.extraIDs...) {
		if !slices.Contains(id.Groups, g) {
			id.Groups = append(id.Groups, g)
		}
	}
	if len(id.Groups) > maxGroups {
		return Identity{}, fault.New(fault.Invalid, "", "", "user %q is in more than %d groups", spec, maxGroups)
	}
	return id, nil
}

// number reads an id. ok tells whether s is a number at all.
func number(s string) (n uint32, ok bool, err error) {
	v, perr := strconv.ParseUint(s, 10, 64)
	if perr != nil {
		if errors.Is(perr, strconv.ErrRange) {
			return 0, true, errRange
		}
		if strings.HasPrefix(s, "-") {
			if _, ierr := strconv.ParseInt(s, 10, 64); ierr == nil {
				return 0, true, errRange
			}
		}
		return 0, false, nil
	}
	if v > maxID {
		return 0, true, errRange
	}
	return uint32(v), true, nil
}

var errRange = fault.New(fault.Invalid, "", "", "uids and gids must be in range 0-%d", maxID)

// findUser looks a user up by name, or by number for its home and groups.
func findUser(spec string, files Files) (user, error) {
	uid, numeric := uint32(0), true
	if spec != "" {
		var err error
		if uid, numeric, err = number(spec); err != nil {
			return user{}, err
		}
	}
	var found *user
	err := lines(files.Passwd, func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 4 || (!numeric && f[0] != spec) {
			return true
		}
		u, ok1, err1 := number(f[2])
		g, ok2, err2 := number(f[3])
		if !ok1 || !ok2 || err1 != nil || err2 != nil || (numeric && u != uid) {
			return true
		}
		found = &user{name: f[0], uid: u, gid: g}
		if len(f) > 5 {
			found.home = f[5]
		}
		return false
	})
	switch {
	case err != nil:
		return user{}, err
	case found != nil:
		return *found, nil
	case numeric:
		return user{uid: uid}, nil
	}
	return user{}, fault.New(fault.Invalid, "", "", "unable to find user %s: no matching entries in passwd file", spec)
}

// groupQuery is everything that is wanted from /etc/group, found in one pass.
type groupQuery struct {
	primary    string
	hasPrimary bool
	extra      []string
	member     string // whose groups are wanted

	gid      uint32
	memberOf []uint32
	extraIDs []uint32
}

func (q *groupQuery) find(files Files) error {
	names := make(map[string]uint32)
	missing := make(map[string]bool)
	if q.hasPrimary {
		n, numeric, err := number(q.primary)
		if err != nil {
			return err
		}
		if q.gid = n; !numeric {
			missing[q.primary] = true
		}
	}
	for _, g := range q.extra {
		n, numeric, err := number(g)
		if err != nil {
			return err
		}
		if numeric {
			q.extraIDs = append(q.extraIDs, n)
		} else {
			missing[g] = true
		}
	}
	// A group given by hand stands for all of them, as in docker.
	wantMember := q.member != "" && !q.hasPrimary
	if !wantMember && len(missing) == 0 {
		return nil
	}
	err := lines(files.Group, func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 3 {
			return true
		}
		gid, ok, err := number(f[2])
		if !ok || err != nil {
			return true
		}
		if missing[f[0]] {
			delete(missing, f[0])
			names[f[0]] = gid
		}
		if wantMember && len(f) > 3 && isMember(f[3], q.member) && len(q.memberOf) < maxGroups {
			q.memberOf = append(q.memberOf, gid)
		}
		return true
	})
	if err != nil {
		return err
	}
	return q.take(names)
}

// take fills in the groups that were found by name.
func (q *groupQuery) take(names map[string]uint32) error {
	look := func(name string) (uint32, error) {
		gid, ok := names[name]
		if !ok {
			return 0, fault.New(fault.Invalid, "", "", "unable to find group %s: no matching entries in group file", name)
		}
		return gid, nil
	}
	if _, numeric, _ := number(q.primary); q.hasPrimary && !numeric {
		gid, err := look(q.primary)
		if err != nil {
			return err
		}
		q.gid = gid
	}
	for _, g := range q.extra {
		if _, numeric, _ := number(g); numeric {
			continue
		}
		gid, err := look(g)
		if err != nil {
			return err
		}
		q.extraIDs = append(q.extraIDs, gid)
	}
	return nil
}

// isMember looks for a name in a comma-separated list without splitting it.
func isMember(list, name string) bool {
	for list != "" {
		var one string
		one, list, _ = strings.Cut(list, ",")
		if one == name {
			return true
		}
	}
	return false
}

// lines calls fn for each line until it returns false. A missing file has no
// lines; a line that is too long is skipped; what lies beyond the bound of the
// file is not read.
func lines(open func() (io.ReadCloser, error), fn func(line string) bool) error {
	if open == nil {
		return nil
	}
	f, err := open()
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.LimitReader(f, maxFile), 4096)
	for {
		line, err := readLine(r)
		if line != "" && !strings.HasPrefix(line, "#") && !fn(line) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Wrap("read user database", "", err)
		}
	}
}

// readLine reads up to the next line feed; a line longer than the bound comes
// back empty.
func readLine(r *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			if long == nil {
				return strings.TrimSpace(string(part)), err
			}
			if len(long)+len(part) > maxLine {
				return "", err
			}
			return strings.TrimSpace(string(append(long, part...))), err
		}
		if len(long) <= maxLine {
			long = append(long, part...)
		}
	}
}
