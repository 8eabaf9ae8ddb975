// Package archive moves trees of files between this machine and tar streams for
// `cp`. It exists because what comes out of a container is hostile: extraction
// here stays below the target whatever the archive says, makes no devices, and
// leaves the modes of what was there alone.
package archive

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// packBuffer is how much of an archive is written at a time.
const packBuffer = 256 << 10

// Pack writes the file or directory at path as an archive whose first entry is
// called name; the entries of a directory called "." are its contents. It returns
// the size of all files.
func Pack(w io.Writer, path, name string) (int64, error) {
	buffered := bufio.NewWriterSize(w, packBuffer)
	p := &packer{out: tar.NewWriter(buffered), seen: map[inode]string{}, buf: make([]byte, packBuffer)}
	err := filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, at)
		if err != nil {
			return err
		}
		return p.add(at, filepath.ToSlash(filepath.Join(name, rel)), entry)
	})
	if err == nil {
		err = p.out.Close()
	}
	if err == nil {
		err = buffered.Flush()
	}
	return p.size, err
}

type inode struct{ dev, ino uint64 }

type packer struct {
	out  *tar.Writer
	seen map[inode]string // files with several names
	buf  []byte
	size int64
	// foreign leaves owners out.
	foreign bool
}

func (p *packer) add(path, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		return err
	}
	target := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	case info.Mode()&fs.ModeSocket != 0: // nothing that an archive could hold
		return nil
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	if p.foreign {
		h.Uid, h.Gid = 0, 0
	}
	h.Format = tar.FormatPAX // keeps fractions of seconds
	if info.IsDir() {
		h.Name = strings.TrimSuffix(name, "/") + "/"
	}
	if info.Mode().IsRegular() {
		return p.file(path, h)
	}
	return p.out.WriteHeader(h)
}

// file adds a regular file. Its size is taken again from what was opened: the
// directory may have changed since.
func (p *packer) file(path string, h *tar.Header) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s became something else while it was read", path)
	}
	if id := (inode{stat.Dev, stat.Ino}); stat.Nlink > 1 {
		if first, ok := p.seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.out.WriteHeader(h)
		}
		p.seen[id] = h.Name
	}
	h.Size = stat.Size
	if err := p.out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.out}, struct{ io.Reader }{io.LimitReader(f, h.Size)}, p.buf)
	p.size += n
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was read", path)
	}
	return err
}
