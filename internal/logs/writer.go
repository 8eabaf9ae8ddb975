package logs

import (
	"errors"
	"strconv"

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
}

// OpenWriter opens or makes the log file at path. maxSize and maxFiles are 0
// for the defaults; maxSize -1 is no limit.
func OpenWriter(path string, maxSize int64, maxFiles int) (*Writer, error) {
	if maxSize == 0 {
		maxSize = DefaultMaxSize
	}
	if maxFiles <= 0 {
		maxFiles = DefaultMaxFiles
	}
	w := &Writer{path: path, max: maxSize, files: maxFiles, fd: -1}
	if err := w.open(); err != nil {
		return nil, err
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

// Close closes the file.
func (w *Writer) Close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
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

// shift renames path to path.1, path.1 to path.2 and so on up to the first
// name that is free, or over the oldest file. The free name makes it safe to
// repeat: what was moved already is beyond it.
func (w *Writer) shift() error {
	if w.files == 1 {
		return unix.Unlink(w.path)
	}
	free := 1
	for ; free < w.files-1; free++ {
		var st unix.Stat_t
		if unix.Lstat(rotated(w.path, free), &st) == unix.ENOENT {
			break
		}
	}
	for i := free; i > 0; i-- {
		if err := unix.Rename(rotated(w.path, i-1), rotated(w.path, i)); err != nil {
			return err
		}
	}
	return nil
}

// rotated returns the name of the i-th oldest file; 0 is the current one.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// Remove deletes a log with all its rotated files.
func Remove(path string) error {
	for i := 0; ; i++ {
		err := unix.Unlink(rotated(path, i))
		if err == unix.ENOENT && i > 0 {
			return nil
		}
		if err != nil && err != unix.ENOENT {
			return fault.New(fault.Internal, "remove log file", rotated(path, i), "%w", err)
		}
	}
}
