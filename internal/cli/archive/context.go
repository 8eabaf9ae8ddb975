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

// PackContext writes the directory dir as an archive of its contents for a build,
// without what its .dockerignore leaves out, or that of the Dockerfile, which goes
// before. Both ignore files and the Dockerfile, a path in dir or "", are always in
// it. Owners stay behind: they mean nothing on the engine's machine.
func PackContext(w io.Writer, dir, dockerfile string) error {
	lines, always, err := ignored(dir, dockerfile)
	if err != nil {
		return err
	}
	match, err := patternmatcher.New(lines)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(w, packBuffer)
	p := &packer{out: tar.NewWriter(buffered), seen: map[inode]string{}, buf: make([]byte, packBuffer), foreign: true}
	if err := p.walk(dir, "", match, patternmatcher.MatchInfo{}, always); err != nil {
		return err
	}
	if err := p.out.Close(); err != nil {
		return err
	}
	return buffered.Flush()
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

// walk adds what is below a directory. A directory that is left out is looked into
// only if something in it may be wanted.
func (p *packer) walk(dir, name string, match *patternmatcher.PatternMatcher, above patternmatcher.MatchInfo, always []string) error {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		rel := filepath.Join(name, entry.Name())
		out, info, err := match.MatchesUsingParentResults(filepath.ToSlash(rel), above)
		if err != nil {
			return err
		}
		if !out || slices.Contains(always, rel) {
			if err := p.add(filepath.Join(dir, rel), filepath.ToSlash(rel), entry); err != nil {
				return err
			}
		}
		if entry.IsDir() && (!out || match.Exclusions() || holds(rel, always)) {
			if err := p.walk(dir, rel, match, info, always); err != nil {
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
