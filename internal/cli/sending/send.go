package sending

import (
	"crypto/sha256"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth/internal/wire/manifest"
)

// content is a file that is read from its beginning to its end.
type content struct {
	f      *os.File
	before version
	sum    hash.Hash
	size   int64
}

func openContent(path string) (*content, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	c := &content{f: f, sum: sha256.New()}
	c.before, err = c.version()
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

func (c *content) version() (version, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.f.Fd()), &st); err != nil {
		return version{}, &os.PathError{Op: "stat", Path: c.f.Name(), Err: err}
	}
	return versionOf(&st), nil
}

// Read reads on. What is longer than it was at first is not followed.
func (c *content) Read(p []byte) (int, error) {
	if c.size > c.before.Size {
		return 0, io.EOF
	}
	n, err := c.f.Read(p)
	c.size += int64(n)
	c.sum.Write(p[:n])
	return n, err
}

// end closes the file and returns what it is. same tells that it did not change
// while it was read.
func (c *content) end(name string) (e manifest.Entry, v version, same bool, err error) {
	defer c.f.Close()
	if v, err = c.version(); err != nil {
		return e, v, false, err
	}
	e = manifest.Entry{Path: name, Kind: manifest.File, Mode: v.Mode & 0o7777, Mtime: v.Mtime, Size: c.size, Digest: [32]byte(c.sum.Sum(nil))}
	e.Xattrs, err = fileXattrs(c.f)
	return e, v, v == c.before && c.size == v.Size, err
}

// sender is the contents of files, as package manifest has them.
type sender struct {
	d     *Directory
	todo  []int // positions in the list
	tries int   // of the first of them
	file  *content
	buf   [256 << 10]byte
	out   []byte // encoded, to be read
}

// Read implements io.Reader.
func (s *sender) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if len(s.todo) == 0 {
			s.d.cache.save(s.d.list) // with what was found to be different
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			s.close()
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

func (s *sender) close() {
	if s.file != nil {
		s.file.f.Close()
		s.file = nil
	}
}

// next makes the next part of what is sent.
func (s *sender) next() error {
	i := s.todo[0]
	listed := &s.d.list[i]
	path := filepath.Join(s.d.dir, listed.Path)
	if s.file == nil {
		if s.tries++; s.tries > tries {
			return changing(path)
		}
		var err error
		if s.file, err = openContent(path); err != nil {
			return err
		}
	}
	n, err := s.file.Read(s.buf[:])
	if n > 0 {
		s.out = manifest.AppendPiece(s.out[:0], s.buf[:n])
	}
	if err == nil {
		return nil
	}
	if err != io.EOF {
		return err
	}
	is, v, same, err := s.file.end(listed.Path)
	s.file = nil
	if err != nil {
		return err
	}
	if !same {
		s.out = manifest.AppendEnd(s.out, listed, nil)
		return nil
	}
	s.out = manifest.AppendEnd(s.out, listed, &is)
	if !is.Equal(listed) {
		*listed = is
		s.d.cache.put(&is, v)
	}
	s.todo, s.tries = s.todo[1:], 0
	return nil
}
