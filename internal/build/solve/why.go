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

	"github.com/opencontainers/go-digest"

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
	for i, p := range id.parts {
		before, ok := part(old.Parts, p.Name)
		if ok && before == p.Value {
			continue
		}
		return s.difference(id, i, p, before, ok)
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
func (s *Solver) difference(id *stepIdentity, i int, p Part, before string, known bool) string {
	name, isVariable := strings.CutPrefix(p.Name, "variable ")
	switch {
	case isVariable && !known:
		return fmt.Sprintf("variable %s is new", name)
	case isVariable:
		return fmt.Sprintf("variable %s was %s and is %s", name, short(before), short(p.Value))
	case p.Name == "base":
		return "the files below it changed: an earlier step or the base image gave another result"
	case strings.HasPrefix(p.Name, "files") && known:
		if text := s.compareListings(digest.Digest(before), digest.Digest(p.Value)); text != "" {
			return text
		}
		return "the files that it takes changed"
	case !known:
		return p.Name + " is new"
	}
	return fmt.Sprintf("%s was %s and is %s", p.Name, short(before), short(p.Value))
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
		fmt.Fprintf(&b, "%x %q\n", i.Sum, i.Path)
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

func (s *Solver) readListing(d digest.Digest) map[string]string {
	if d.Validate() != nil {
		return nil
	}
	f, err := os.Open(filepath.Join(s.o.Dir, "lists", d.Encoded()))
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		sum, name, _ := strings.Cut(sc.Text(), " ")
		if name, err := strconv.Unquote(name); err == nil {
			out[name] = sum
		}
	}
	return out
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
			first = name + " is new"
		case !is:
			first = name + " is gone"
		default:
			first = name + " changed"
		}
	}
	if more > 0 {
		first += fmt.Sprintf(", and %d more", more)
	}
	return first
}
