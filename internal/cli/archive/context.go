package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// PackContext writes the directory dir as an archive of its contents for a build.
// Owners stay behind: they mean nothing on the engine's machine.
func PackContext(w io.Writer, dir, dockerfile string) error {
	buffered := bufio.NewWriterSize(w, packBuffer)
	p := &packer{out: tar.NewWriter(buffered), seen: map[inode]string{}, buf: make([]byte, packBuffer), foreign: true}
	err := WalkContext(dir, dockerfile, func(rel string, entry fs.DirEntry) error {
		return p.add(filepath.Join(dir, rel), filepath.ToSlash(rel), entry)
	})
	if err != nil {
		return err
	}
	if err := p.out.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// WalkContext calls fn for what a build is sent of the directory dir, in the order
// of names: all that its .dockerignore does not leave out, or that of the
// Dockerfile, which goes before. Both ignore files and the Dockerfile, a path in
// dir or "", are always among it. A directory may be left out although something
// in it is not.
func WalkContext(dir, dockerfile string, fn func(rel string, entry fs.DirEntry) error) error {
	lines, always, err := ignored(dir, dockerfile)
	if err != nil {
		return err
	}
	match, err := patternmatcher.New(lines)
	if err != nil {
		return err
	}
	w := &contextWalk{dir: dir, match: match, always: always, fn: fn}
	return w.walk("", patternmatcher.MatchInfo{})
}

// ignored returns the patterns that apply, and the files that are sent anyway.
func ignored(dir, dockerfile string) (lines, always []string, err error) {
	names := []string{".dockerignore"}
	if dockerfile != "" {
		names = []string{dockerfile + ".dockerignore", ".dockerignore"}
		always = append(always, filepath.Clean(dockerfile))
	}
	found := false
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		always = append(always, filepath.Clean(name))
		if found {
			continue
		}
		found = true
		if lines, err = ignorefile.ReadAll(bytes.NewReader(text)); err != nil {
			return nil, nil, err
		}
	}
	return lines, always, nil
}

// contextWalk is a walk of WalkContext.
type contextWalk struct {
	dir    string
	match  *patternmatcher.PatternMatcher
	always []string
	fn     func(rel string, entry fs.DirEntry) error
}

// walk goes through a directory. One that is left out is looked into only if
// something in it may be wanted.
func (w *contextWalk) walk(name string, above patternmatcher.MatchInfo) error {
	entries, err := os.ReadDir(filepath.Join(w.dir, name))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		rel := filepath.Join(name, entry.Name())
		out, info, err := w.match.MatchesUsingParentResults(filepath.ToSlash(rel), above)
		if err != nil {
			return err
		}
		if !out || slices.Contains(w.always, rel) {
			if err := w.fn(rel, entry); err != nil {
				return err
			}
		}
		if entry.IsDir() && (!out || w.match.Exclusions() || holds(rel, w.always)) {
			if err := w.walk(rel, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// holds reports whether one of the files is below a directory.
func holds(dir string, files []string) bool {
	return slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, dir+string(filepath.Separator)) })
}
