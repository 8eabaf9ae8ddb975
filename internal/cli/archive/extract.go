package archive

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how files are extracted.
type Options struct {
	// Owners keeps the owners and all mode bits of the archive; else files belong
	// to whoever extracts them and run with nobody's rights but the caller's.
	Owners bool
	// Skipped is told of what was left out and why; nil when nobody wants to know.
	Skipped func(name, why string)
}

// Extract puts what an archive holds at target. The archive's first element,
// which all its names begin with, becomes target itself: a file, or a directory
// that is made or filled. It returns the size of all files.
func Extract(r io.Reader, target string, o Options) (int64, error) {
	x := &extractor{o: o, in: tar.NewReader(bufio.NewReaderSize(r, packBuffer)), buf: make([]byte, packBuffer)}
	defer x.close()
	err := x.run(target)
	if finished := x.finish(); err == nil {
		err = finished
	}
	return x.size, err
}

func (x *extractor) run(target string) error {
	for {
		h, err := x.in.Next()
		if errors.Is(err, io.EOF) {
			if x.root == nil {
				return errors.New("the archive is empty")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := x.entry(h, target); err != nil {
			return err
		}
	}
}

// extractor extracts one archive. Everything below the target is reached through
// root, which no name and no link leaves.
type extractor struct {
	o    Options
	in   *tar.Reader
	buf  []byte
	size int64

	top  string   // the archive's first element
	root *os.Root // the target directory, or that of a single file
	base string   // the target's name in root for a single file, "" for a directory
	dirs []made   // directories whose mode and time are still to be set, outer ones first
}

type made struct {
	name string
	mode fs.FileMode
	at   time.Time
}

func (x *extractor) close() {
	if x.root != nil {
		_ = x.root.Close()
	}
}

// entry extracts one entry.
func (x *extractor) entry(h *tar.Header, target string) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	first, rest := x.split(h.Name)
	if x.root == nil {
		x.top = first // "" for the archive of what "." names
		if err := x.begin(h, target, rest); err != nil {
			return err
		}
	}
	if first != x.top {
		return fmt.Errorf("the archive holds %q, which is not below %q", h.Name, x.top)
	}
	if x.base != "" {
		if rest != "" {
			return fmt.Errorf("the archive holds %q below a file", h.Name)
		}
		return x.extract(h, x.base)
	}
	if rest == "" {
		rest = "."
	}
	return x.extract(h, filepath.FromSlash(rest))
}

// split takes a name apart into the archive's first element and what is below it.
func (x *extractor) split(name string) (first, rest string) {
	name = path.Clean("/" + name)[1:]
	if x.root != nil && x.top == "" {
		return "", name
	}
	first, rest, _ = strings.Cut(name, "/")
	return first, rest
}

// begin opens the target: a directory for a directory, the one that holds it for
// anything else.
func (x *extractor) begin(h *tar.Header, target, rest string) error {
	if h.Typeflag != tar.TypeDir && rest == "" {
		root, err := os.OpenRoot(filepath.Dir(target))
		x.root, x.base = root, filepath.Base(target)
		return err
	}
	err := os.Mkdir(target, 0o777)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	isNew := err == nil
	if x.root, err = os.OpenRoot(target); err != nil || !isNew || rest != "" {
		return err
	}
	x.dirs = append(x.dirs, made{".", x.mode(h), h.ModTime})
	return x.owner(h, ".")
}

// mode returns the permissions for an entry. Bits that give the rights of the
// file's owner to whoever runs it come with the owner or not at all.
func (x *extractor) mode(h *tar.Header) fs.FileMode {
	m := fs.FileMode(h.Mode).Perm()
	if x.o.Owners {
		info := h.FileInfo().Mode()
		m |= info & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	return m
}

func (x *extractor) extract(h *tar.Header, name string) error {
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		return x.directory(h, name)
	case tar.TypeReg:
		err = x.file(h, name)
	case tar.TypeSymlink:
		if err = x.clear(name); err == nil {
			err = x.root.Symlink(h.Linkname, name)
		}
		return x.own(h, name, err)
	case tar.TypeLink:
		return x.link(h, name)
	case tar.TypeFifo:
		err = x.fifo(h, name)
	case tar.TypeChar, tar.TypeBlock:
		x.skip(h.Name, "devices of a container are not made on this machine")
		return nil
	default:
		return fmt.Errorf("%s is of the kind %q, which is not known", h.Name, h.Typeflag)
	}
	if err == nil {
		err = x.own(h, name, x.root.Chtimes(name, h.ModTime, h.ModTime))
	}
	return err
}

func (x *extractor) skip(name, why string) {
	if x.o.Skipped != nil {
		x.o.Skipped(name, why)
	}
}

// own gives a new file to its owner. Changing the owner takes mode bits away, so
// they are set again.
func (x *extractor) own(h *tar.Header, name string, err error) error {
	if err != nil || !x.o.Owners {
		return err
	}
	if err := x.owner(h, name); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	return x.root.Chmod(name, x.mode(h))
}

// directory makes a directory, or uses one that is there as it is.
func (x *extractor) directory(h *tar.Header, name string) error {
	if name == "." {
		return nil
	}
	info, err := x.root.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s is there and is no directory", filepath.Join(x.root.Name(), name))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := x.root.Mkdir(name, 0o700); err != nil { // entries come before the mode that may forbid them
		return err
	}
	x.dirs = append(x.dirs, made{name, x.mode(h), h.ModTime})
	return x.owner(h, name)
}

func (x *extractor) owner(h *tar.Header, name string) error {
	if !x.o.Owners {
		return nil
	}
	return x.root.Lchown(name, h.Uid, h.Gid)
}

// clear makes way for something that is no directory.
func (x *extractor) clear(name string) error {
	info, err := x.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is there and is a directory", filepath.Join(x.root.Name(), name))
	}
	return x.root.Remove(name)
}

func (x *extractor) file(h *tar.Header, name string) error {
	if err := x.clear(name); err != nil {
		return err
	}
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{x.in}, x.buf)
	x.size += n
	if err == nil {
		err = f.Chmod(x.mode(h))
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// link makes a hard link to a file that this archive brought.
func (x *extractor) link(h *tar.Header, name string) error {
	first, rest := x.split(h.Linkname)
	if first != x.top || rest == "" || x.base != "" {
		return fmt.Errorf("%s is a link to %q, which was not copied", h.Name, h.Linkname)
	}
	if err := x.clear(name); err != nil {
		return err
	}
	return x.root.Link(filepath.FromSlash(rest), name)
}

func (x *extractor) fifo(h *tar.Header, name string) error {
	if err := x.clear(name); err != nil {
		return err
	}
	dir, err := x.root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Mkfifoat(int(dir.Fd()), filepath.Base(name), uint32(x.mode(h).Perm()))
}

// finish sets what later entries needed otherwise, also when one of them failed.
func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		d := x.dirs[i]
		info, err := x.root.Lstat(d.name)
		if err != nil || !info.IsDir() { // a later entry has taken its place
			continue
		}
		if err := x.root.Chmod(d.name, d.mode); err != nil {
			return err
		}
		if err := x.root.Chtimes(d.name, d.at, d.at); err != nil {
			return err
		}
	}
	return nil
}
