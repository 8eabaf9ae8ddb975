// Package smallfile reads and writes small files with as few system calls as
// there are. Package os registers every file with the network poller first,
// which costs seven calls more than the content is worth on the way to a
// container's start.
package smallfile

import (
	"bytes"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// firstSize is what most files have room in.
const firstSize = 4096

// firsts are buffers for beginnings of files. A file of the kernel holds a few bytes
// and is read thousands of times a second when many containers are watched: a buffer
// of its own for each would be most of what the collector has to do.
var firsts = sync.Pool{New: func() any { return new([firstSize]byte) }}

// Read returns the content of a file, at most limit+1 bytes of it: a longer
// result than limit tells that the file is too large.
func Read(name string, limit int) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	first := firsts.Get().(*[firstSize]byte)
	defer firsts.Put(first)
	buf := first[:0]
	for len(buf) <= limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	if buf = buf[:min(len(buf), limit+1)]; cap(buf) == firstSize {
		buf = bytes.Clone(buf)
	}
	return buf, nil
}

// Write creates or truncates a file and writes data to it.
func Write(name string, data []byte, mode uint32) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	for len(data) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, data) })
		if err != nil {
			unix.Close(fd)
			return &os.PathError{Op: "write", Path: name, Err: err}
		}
		data = data[n:]
	}
	if err := unix.Close(fd); err != nil {
		return &os.PathError{Op: "close", Path: name, Err: err}
	}
	return nil
}
