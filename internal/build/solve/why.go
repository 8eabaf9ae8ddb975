package solve

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
)

// why says what is the first thing in which a step differs from the closest
// earlier run of it.
func (s *Solver) why(id *stepIdentity) string {
	s.mu.Lock()
	if r := s.records[id.key]; r != nil {
		s.mu.Unlock()
		return "its result is not there any more, or it is to be run without the cache"
	}
	old := s.closest(id)
	s.mu.Unlock()
	if old == nil {
		return "it was never run before"
	}
	for _, p := range id.parts {
		before, ok := part(old.Parts, p.Name)
		if ok && before == p.Value {
			continue
		}
		return s.difference(id, old, p, before, ok)
	}
	for _, p := range old.Parts {
		if _, ok := part(id.parts, p.Name); !ok {
			return p.Name + " is gone"
		}
	}
	return "it differs from earlier runs"
}

// closest returns the record of the step's place, or of its text elsewhere, that
// has most in common with it. The caller holds mu.
func (s *Solver) closest(id *stepIdentity) *Record {
	candidates := s.bySlot[id.slot]
	if len(candidates) == 0 {
		for _, r := range s.records {
			if r.Kind == id.kind && r.Text == id.text && r.Text != "" {
				candidates = append(candidates, r)
			}
		}
	}
	var best *Record
	most := -1
	for _, r := range candidates {
		same := 0
		for _, p := range id.parts {
			if v, ok := part(r.Parts, p.Name); ok && v == p.Value {
				same++
			}
		}
		if same > most || same == most && best != nil && r.LastUsed.After(best.LastUsed) {
			best, most = r, same
		}
	}
	return best
}

func part(parts []Part, name string) (string, bool) {
	for _, p := range parts {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

// difference puts one differing part into words.
func (s *Solver) difference(id *stepIdentity, old *Record, p Part, before string, known bool) string {
	name, isVariable := strings.CutPrefix(p.Name, "variable ")
	if isVariable {
		what := "variable " + name
		if id.args[name] {
			what = "build argument " + name
		}
		switch {
		case !known:
			return what + " is new"
		case graph.SecretName(name):
			return what + " has another value"
		}
		return fmt.Sprintf("%s: %s → %s", what, short(before), short(p.Value))
	}
	switch {
	case p.Name == "base":
		return baseMoved(old.Base, id.base)
	case strings.HasPrefix(p.Name, "files") && known:
		if text := s.compareListings(digest.Digest(before), digest.Digest(p.Value)); text != "" {
			return text
		}
		return "the files that it takes changed"
	}
	switch kind, _, _ := strings.Cut(p.Name, " "); kind {
	case "command", "copy", "file", "directory", "mount":
		if old.Text != id.text {
			return fmt.Sprintf("the instruction was %s and is %s", short(old.Text), short(id.text))
		}
		if kind == "copy" || kind == "mount" {
			return "the instruction means something else: a variable in it has another value"
		}
	}
	if !known {
		return p.Name + " is new"
	}
	return fmt.Sprintf("%s was %s and is %s", p.Name, short(before), short(p.Value))
}

// baseMoved tells a base image that changed from a step below that did. Both are as
// in Record.Base.
func baseMoved(before, now string) string {
	a, oldID, _ := strings.Cut(before, " ")
	b, newID, _ := strings.Cut(now, " ")
	brief := func(id string) string { return id[:min(len(id), len("sha256:")+12)] }
	switch {
	case now == "":
		return "the files below it changed: an earlier step gave another result"
	case a == b && oldID != newID:
		return fmt.Sprintf("the base image %s has moved from %s to %s", b, brief(oldID), brief(newID))
	case a != b && a != "":
		return fmt.Sprintf("the base image was %s and is %s", a, b)
	}
	return "the files below it are now those of the base image " + b
}

func short(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// maxListing bounds the lists that are kept to explain misses.
const maxListing = 200_000

// keepListing writes down what a digest was made of.
func (s *Solver) keepListing(d digest.Digest, list *tree.Contents) {
	p := filepath.Join(s.o.Dir, "lists", d.Encoded())
	if list == nil || list.Len() > maxListing {
		return
	}
	if _, err := os.Lstat(p); err == nil {
		return
	}
	var b strings.Builder
	for i := range list.All {
		fmt.Fprintf(&b, "%x %o %d:%d %q\n", i.Sum, i.Mode, i.UID, i.GID, i.Path)
	}
	// Only an explanation is lost if this fails.
	if os.WriteFile(p+".new", []byte(b.String()), 0o600) == nil {
		_ = os.Rename(p+".new", p)
	}
	s.trimListings()
}

// maxListings bounds how many lists are kept.
const maxListings = 256

// trimListings removes the oldest lists when there are too many.
func (s *Solver) trimListings() {
	dir := filepath.Join(s.o.Dir, "lists")
	files, err := os.ReadDir(dir)
	if err != nil || len(files) <= maxListings {
		return
	}
	age := func(e os.DirEntry) time.Time {
		if fi, err := e.Info(); err == nil {
			return fi.ModTime()
		}
		return time.Time{}
	}
	slices.SortFunc(files, func(a, b os.DirEntry) int { return age(a).Compare(age(b)) })
	for _, f := range files[:len(files)-maxListings*3/4] {
		_ = os.Remove(filepath.Join(dir, f.Name()))
	}
}

// shown is a file's name as it can be shown: who made the file chose it.
func shown(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

// listed is a line of a list: what was at a path.
type listed struct{ sum, mode, owner string }

func (s *Solver) readListing(d digest.Digest) map[string]listed {
	if d.Validate() != nil {
		return nil
	}
	f, err := os.Open(filepath.Join(s.o.Dir, "lists", d.Encoded()))
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]listed{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		parts := strings.SplitN(sc.Text(), " ", 4)
		if len(parts) < 4 {
			return nil
		}
		name, err := strconv.Unquote(parts[3])
		if err != nil {
			return nil // of an earlier form
		}
		out[name] = listed{parts[0], parts[1], parts[2]}
	}
	return out
}

// changed says how what is at a path differs.
func (l listed) changed(now listed) string {
	kind := func(mode string) (bits, rest uint64) {
		n, _ := strconv.ParseUint(mode, 8, 32)
		return n & unix.S_IFMT, n &^ unix.S_IFMT
	}
	wasKind, wasMode := kind(l.mode)
	isKind, isMode := kind(now.mode)
	if wasKind != isKind {
		return "kind of file"
	}
	var how []string
	if l.sum != now.sum {
		how = append(how, "content")
	}
	if wasMode != isMode {
		how = append(how, fmt.Sprintf("mode %03o → %03o", wasMode, isMode))
	}
	if l.owner != now.owner {
		how = append(how, "owner "+l.owner+" → "+now.owner)
	}
	return strings.Join(how, ", ")
}

// compareListings names the first file that differs, and how.
func (s *Solver) compareListings(before, after digest.Digest) string {
	old, now := s.readListing(before), s.readListing(after)
	if old == nil || now == nil {
		return ""
	}
	var names []string
	for name := range now {
		names = append(names, name)
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	first, more := "", 0
	for _, name := range names {
		a, was := old[name]
		b, is := now[name]
		if was && is && a == b {
			continue
		}
		if first != "" {
			more++
			continue
		}
		switch {
		case !was:
			first = shown(name) + " is new"
		case !is:
			first = shown(name) + " is gone"
		default:
			first = shown(name) + " changed: " + a.changed(b)
		}
	}
	if more > 0 {
		first += fmt.Sprintf(", and %d more", more)
	}
	return first
}
