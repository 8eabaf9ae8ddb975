// Package source gets what builds are made from: the caller's directory, an
// archive, a repository, a file at a URL. It exists because all of these are
// somebody else's: names, links and addresses in them are hostile, and what did
// not change since the last build must not be read or fetched again.
package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/moby/patternmatcher/ignorefile"

	"berth/internal/build/tree"
	"berth/internal/fault"
)

// Store keeps what is remembered about sources between builds.
type Store struct {
	dir      string // ours alone
	sums     sumCache
	received *received
}

// Open opens the store in dir, making it when missing. What an unfinished build
// left there is removed.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	s.sums.dir = filepath.Join(dir, "sums")
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil && !errors.Is(err, syscall.EROFS) {
		return nil, fault.Wrap("open build sources", dir, err)
	}
	for _, d := range []string{s.sums.dir, filepath.Join(dir, "tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fault.Wrap("open build sources", dir, err)
		}
	}
	var err error
	if s.received, err = openReceived(s); err != nil {
		return nil, fault.Wrap("open build sources", dir, err)
	}
	return s, nil
}

// Context is a build context that is ready to be read.
type Context struct {
	*tree.Dir
	Commit string // of a repository, else ""
	dir    string // on this machine
	ignore tree.Ignorer
	sums   *Sums
	remove func()
}

// Close lets go of the context, and saves what was learned about its files.
func (c *Context) Close() error {
	c.Dir.Close()
	var err error
	if c.sums != nil {
		err = c.sums.release()
	}
	if c.remove != nil {
		c.remove()
	}
	return err
}

// Ignored reports whether the context leaves out the path, given without a
// slash in front.
func (c *Context) Ignored(p string) bool {
	if c.ignore == nil {
		return false
	}
	var state any
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		out, next, err := c.ignore.Ignored(p[:i], state)
		if err != nil {
			return false
		}
		if i == len(p) {
			return out && !c.ignore.Below(p)
		}
		state = next
	}
	return false
}

// maxIgnore bounds a .dockerignore.
const maxIgnore = 4 << 20

// Local opens a directory of this machine as a context. as is whose rights apply,
// nil for the engine's own. dockerfile is the Dockerfile's path in the context:
// <dockerfile>.dockerignore goes before .dockerignore.
func (s *Store) Local(dir string, as *tree.Credentials, dockerfile string) (*Context, error) {
	if !filepath.IsAbs(dir) {
		return nil, fault.New(fault.Invalid, "open build context", dir, "the path is not absolute")
	}
	c := &Context{dir: filepath.Clean(dir), sums: s.sums.open(filepath.Clean(dir), as)}
	return c, c.open(tree.Options{Flat: true, As: as, Sums: c.sums}, dockerfile)
}

// open opens the directory, with its ignore file.
func (c *Context) open(o tree.Options, dockerfile string) error {
	plain, err := tree.Open(c.dir, tree.Options{As: o.As})
	if err != nil {
		return fault.Wrap("open build context", c.dir, err)
	}
	lines, err := ignoreLines(plain, dockerfile)
	plain.Close()
	if err != nil {
		return err
	}
	if o.Ignore, err = tree.NewIgnorer(lines); err != nil {
		return fault.New(fault.Invalid, "read", ".dockerignore", "%w", err)
	}
	c.ignore = o.Ignore
	c.Dir, err = tree.Open(c.dir, o)
	return err
}

// ignoreLines reads the patterns of the ignore file that applies. The file is
// looked for inside the context, whatever links lead there.
func ignoreLines(d *tree.Dir, dockerfile string) ([]string, error) {
	var names []string
	if dockerfile != "" && !path.IsAbs(dockerfile) {
		names = append(names, dockerfile+".dockerignore")
	}
	for _, name := range append(names, ".dockerignore") {
		data, err := d.ReadFile(name, maxIgnore)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, fault.Wrap("read", name, err)
		}
		return ParseIgnore(data)
	}
	return nil, nil
}

// ParseIgnore reads the patterns of an ignore file.
func ParseIgnore(data []byte) ([]string, error) {
	lines, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read", ".dockerignore", "%w", err)
	}
	return lines, nil
}

// temp makes a directory that goes with the context, or at the next start.
func (s *Store) temp() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(filepath.Join(s.dir, "tmp"), "")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// Archive unpacks an archive, which may be compressed, as a context.
func (s *Store) Archive(ctx context.Context, r io.Reader, dockerfile string) (*Context, error) {
	const op = "unpack build context"
	dir, remove, err := s.temp()
	if err != nil {
		return nil, fault.Wrap(op, "", err)
	}
	c := &Context{dir: dir, remove: remove}
	if err = s.unpack(ctx, r, dir); err == nil {
		err = c.open(tree.Options{Flat: true}, dockerfile)
	}
	if err != nil {
		remove()
		return nil, fault.Wrap(op, "", err)
	}
	return c, nil
}

func (s *Store) unpack(ctx context.Context, r io.Reader, dir string) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Untar(ctx, r, "/", tree.CopyOptions{Owner: &tree.Owner{}})
}

// Files makes a context of a few files, for a Dockerfile without one.
func (s *Store) Files(files map[string][]byte, dockerfile string) (*Context, error) {
	dir, remove, err := s.temp()
	if err != nil {
		return nil, fault.Wrap("make build context", "", err)
	}
	c := &Context{dir: dir, remove: remove}
	root, err := openRoot(dir)
	if err == nil {
		for name, data := range files {
			err = errors.Join(err, root.MakeFile(name, data, tree.Attributes{Mode: 0o644}))
		}
		root.Close()
	}
	if err == nil {
		err = c.open(tree.Options{Flat: true}, dockerfile)
	}
	if err != nil {
		remove()
		return nil, err
	}
	return c, nil
}

// Sub opens a directory below the context's, with an ignore file of its own.
func (c *Context) Sub(dir, dockerfile string) (*Context, error) {
	real, err := c.Real(dir)
	if err != nil {
		return nil, err
	}
	sub := &Context{dir: filepath.Join(c.dir, real), remove: c.remove}
	if err := sub.open(tree.Options{Flat: true}, dockerfile); err != nil {
		return nil, err
	}
	c.Dir.Close()
	return sub, nil
}
