package logs

import (
	"errors"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Writer appends to a log file and rotates it. It is not safe for concurrent
// use. It works on bare descriptors: the monitor has one for each container.
type Writer struct {
	path  string
	max   int64
	files int

	fd    int
	size  int64
	inode uint64

	compressor *compressor // nil: rotated files stay as they are
}

// Limits say how much of a log is kept, and how.
type Limits struct {
	MaxSize  int64 // bytes of one file; 0 is the default, -1 is no limit
	MaxFiles int   // files kept, the current one included; 0 is the default
	Compress bool  // rotated files are compressed
}

// OpenWriter opens or makes the log file at path.
func OpenWriter(path string, l Limits) (*Writer, error) {
	if l.MaxSize == 0 {
		l.MaxSize = DefaultMaxSize
	}
	if l.MaxFiles <= 0 {
		l.MaxFiles = DefaultMaxFiles
	}
	w := &Writer{path: path, max: l.MaxSize, files: l.MaxFiles, fd: -1}
	if err := w.open(); err != nil {
		return nil, err
	}
	if l.Compress && l.MaxFiles > 1 {
		w.compressor = &compressor{path: path, files: l.MaxFiles}
		if present(path, 1) {
			w.compressor.wake() // a predecessor may have left something undone
		}
	}
	return w, nil
}

func (w *Writer) open() error {
	fd, err := unix.Open(w.path, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return w.fail("open log file", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return w.fail("open log file", err)
	}
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
	w.fd, w.size, w.inode = fd, st.Size, st.Ino
	return nil
}

func (w *Writer) fail(op string, err error) error {
	kind := fault.Internal
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		kind = fault.Exhausted
	}
	return fault.New(kind, op, w.path, "%w", err)
}

// Close closes the file. What is being compressed goes on; see Stop.
func (w *Writer) Close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
	}
}

// Stop ends the compression of rotated files, and returns when nothing will be
// touched any more.
func (w *Writer) Stop() {
	if w.compressor != nil {
		w.compressor.stop()
	}
}

// Size returns how many bytes the current file holds, Inode which file it is.
func (w *Writer) Size() int64   { return w.size }
func (w *Writer) Inode() uint64 { return w.inode }

// Room returns how many bytes may be appended until a rotation is due. Like
// docker, the line that reaches the limit is still written.
func (w *Writer) Room() int64 {
	if w.max < 0 {
		return 1 << 62
	}
	return max(w.max-w.size, 0)
}

// Append writes p, whole lines. When that fails, nothing of p is left behind.
func (w *Writer) Append(p []byte) error {
	before := w.size
	for len(p) > 0 {
		n, err := unix.Write(w.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			_ = unix.Ftruncate(w.fd, before)
			w.size = before
			return w.fail("write log file", err)
		}
		p = p[n:]
		w.size += int64(n)
	}
	return nil
}

// Mend ends a line that a power cut or a full disk left torn, so that the next
// one is read as a line of its own.
func (w *Writer) Mend() error {
	if w.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := unix.Pread(w.fd, last[:], w.size-1); err != nil || last[0] == '\n' {
		return nil
	}
	return w.Append([]byte("\n"))
}

// ReadAt reads from the current file.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) { return unix.Pread(w.fd, p, off) }

// Truncate cuts the current file.
func (w *Writer) Truncate(size int64) error {
	if err := unix.Ftruncate(w.fd, size); err != nil {
		return w.fail("cut log file", err)
	}
	w.size = size
	return nil
}

// Rotate moves the file with the given inode out of the way if it still is the
// current one, and opens the current one. A rotation that was interrupted at
// any point is completed by calling Rotate again with the same inode.
func (w *Writer) Rotate(inode uint64) error {
	var st unix.Stat_t
	err := unix.Stat(w.path, &st)
	if err == nil && st.Ino == inode {
		err = w.shift()
	}
	if err != nil && err != unix.ENOENT {
		return w.fail("rotate log file", err)
	}
	return w.open()
}

// Rotated says that the rotation is over for good, so that the file may be
// compressed.
func (w *Writer) Rotated() {
	if w.compressor != nil {
		w.compressor.wake()
	}
}

// shift renames path to path.1, path.1 to path.2 and so on up to the first
// number that is free, or over the oldest file. The free number makes it safe to
// repeat: what was moved already is beyond it.
func (w *Writer) shift() error {
	if w.compressor != nil {
		w.compressor.names.Lock()
		defer w.compressor.names.Unlock()
	}
	if w.files == 1 {
		return unix.Unlink(w.path)
	}
	free := 1
	for free < w.files-1 && present(w.path, free) {
		free++
	}
	for _, form := range []string{"", compressedSuffix} {
		if err := unix.Unlink(rotated(w.path, free) + form); err != nil && err != unix.ENOENT {
			return err
		}
	}
	for i := free; i > 0; i-- {
		if err := move(rotated(w.path, i-1), rotated(w.path, i)); err != nil {
			return err
		}
	}
	return nil
}

// move renames a file in the form that it has. If it has both, the compressed
// one is complete.
func move(from, to string) error {
	err := unix.Rename(from+compressedSuffix, to+compressedSuffix)
	if err == nil {
		if err = unix.Unlink(from); err == unix.ENOENT {
			err = nil
		}
		return err
	}
	if err != unix.ENOENT {
		return err
	}
	return unix.Rename(from, to)
}
