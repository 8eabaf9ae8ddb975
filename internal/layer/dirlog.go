package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// dirLog remembers, in the archive's order, what directories get at the end,
// when nothing is created in them any more: times would change, and a set-gid
// bit or a default ACL would be inherited by what is created. What of it does
// not fit into its buffer goes to a file without a name, so that an archive of
// millions of directories takes no more memory than one of a hundred.
type dirLog struct {
	where string // directory for the file
	buf   []byte
	file  *os.File // nil until there is more than the buffer takes
}

// dirMeta is what one directory gets.
type dirMeta struct {
	path   string // real path
	again  bool   // the directory may have got other attributes already
	mode   uint32
	times  [2]unix.Timespec
	xattrs map[string]string
}

const dirLogBuffer = 64 << 10

func (l *dirLog) add(m *dirMeta) error {
	if l.buf == nil {
		l.buf = make([]byte, 0, dirLogBuffer+dirLogBuffer/4)
	}
	b := binary.AppendUvarint(l.buf, uint64(len(m.path)))
	b = append(b, m.path...)
	again := byte(0)
	if m.again {
		again = 1
	}
	b = append(b, again)
	b = binary.AppendUvarint(b, uint64(m.mode))
	for _, t := range m.times {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendVarint(b, t.Nsec)
	}
	b = binary.AppendUvarint(b, uint64(len(m.xattrs)))
	for name, value := range m.xattrs {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
	}
	l.buf = b
	if len(l.buf) < dirLogBuffer {
		return nil
	}
	return l.spill()
}

func (l *dirLog) spill() error {
	if l.file == nil {
		fd, err := unix.Open(l.where, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		l.file = os.NewFile(uintptr(fd), "directories of a layer")
	}
	_, err := l.file.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

func (l *dirLog) close() {
	if l.file != nil {
		l.file.Close()
	}
}

var errDirLog = errors.New("the list of directories is damaged")

// each calls f for all that was added, in order.
func (l *dirLog) each(f func(*dirMeta) error) error {
	var src io.Reader = &sliceReader{l.buf}
	if l.file != nil {
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		src = io.MultiReader(l.file, src)
	}
	in := bufio.NewReaderSize(src, dirLogBuffer)
	for {
		m, err := readDirMeta(in)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(m)
		}
		if err != nil {
			return err
		}
	}
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(b []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, nil
}

func readDirMeta(in *bufio.Reader) (*dirMeta, error) {
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	var failed error
	number := func() uint64 {
		v, err := binary.ReadUvarint(in)
		failed = errors.Join(failed, err)
		return v
	}
	signed := func() int64 {
		v, err := binary.ReadVarint(in)
		failed = errors.Join(failed, err)
		return v
	}
	text := func() string {
		n := number()
		if n > 2<<20 || failed != nil { // a tar's extended header has at most 1 MiB
			failed = errors.Join(failed, errDirLog)
			return ""
		}
		b := make([]byte, n)
		_, err := io.ReadFull(in, b)
		failed = errors.Join(failed, err)
		return string(b)
	}
	m := &dirMeta{path: text()}
	again, err := in.ReadByte()
	failed = errors.Join(failed, err)
	m.again, m.mode = again != 0, uint32(number())
	for i := range m.times {
		m.times[i] = unix.Timespec{Sec: signed(), Nsec: signed()}
	}
	if n := number(); n > 0 && failed == nil {
		m.xattrs = map[string]string{}
		for range n {
			name := text()
			m.xattrs[name] = text()
			if failed != nil {
				break
			}
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("%w: %w", errDirLog, failed)
	}
	return m, nil
}

// apply gives an open directory its attributes. refused is called for each
// extended attribute that the file system does not take.
func (m *dirMeta) apply(fd int, umask uint32, refused func()) error {
	if m.again {
		if err := clearXattrs(fd); err != nil {
			return err
		}
	}
	for name, value := range m.xattrs {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			if !xattrRefused(name, err) {
				return fmt.Errorf("attribute %q: %w", name, err)
			}
			refused()
		}
	}
	if m.needsMode(umask) {
		if err := unix.Fchmod(fd, m.mode); err != nil {
			return err
		}
	}
	return futimens(fd, &m.times)
}

// needsMode reports whether the mode is another than the directory was made
// with.
func (m *dirMeta) needsMode(umask uint32) bool {
	return m.again || m.mode&0o7000 != 0 || m.mode&umask != 0 || len(m.xattrs) > 0
}
