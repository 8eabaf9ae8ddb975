package tree

import (
	"context"
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of Stat_t.Blocks, in bytes.
const blockSize = 512

// copyContent copies the content of an open file, whose state is st, to w, and returns
// its size. Holes are not read: skip is called for them instead, with their size. A disk
// image of a hundred gigabytes may have a few megabytes of data.
func copyContent(ctx context.Context, w io.Writer, src int, st *unix.Stat_t, skip func(n int64) error, buf []byte) (size int64, err error) {
	if st.Blocks*blockSize >= st.Size { // what room is taken for is no hole
		return copyBuffer(ctx, w, fdFile(src), buf)
	}
	for {
		from, to, err := nextData(src, size)
		if err == nil {
			err = skip(from - size)
		}
		if err != nil {
			return size, err
		}
		n, err := copyBuffer(ctx, w, io.LimitReader(fdFile(src), to-from), buf)
		if size = from + n; err != nil || size < to || n == 0 {
			return size, err
		}
		if err := ctx.Err(); err != nil {
			return size, err
		}
	}
}

// nextData finds the next piece of a file that is no hole, and goes to its beginning
// (lseek(2)). It is an empty one at the end if none follows; in a file system that does
// not know its holes it is all that is left.
func nextData(fd int, at int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch err {
	case nil:
		to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	case unix.ENXIO:
		from, err = unix.Seek(fd, 0, io.SeekEnd)
		from = max(from, at) // it may have become shorter
		to = from
	default:
		from, to, err = at, math.MaxInt64, nil
	}
	if err == nil {
		_, err = unix.Seek(fd, from, io.SeekStart)
	}
	return from, to, err
}

// copyFile copies the content of src, whose state is st, to the empty file dst, with
// its holes.
func copyFile(ctx context.Context, dst, src int, st *unix.Stat_t, buf []byte) error {
	holes := false
	size, err := copyContent(ctx, fdFile(dst), src, st, func(n int64) error {
		holes = true
		_, err := unix.Seek(dst, n, io.SeekCurrent)
		return err
	}, buf)
	if err == nil && holes {
		err = unix.Ftruncate(dst, size)
	}
	return err
}

// zeros is what holes read as.
var zeros [256 << 10]byte

// zeroWriter returns what writes the content of holes.
func zeroWriter(ctx context.Context, w io.Writer) func(n int64) error {
	return func(n int64) error {
		for n > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			part, err := w.Write(zeros[:min(n, int64(len(zeros)))])
			if n -= int64(part); err != nil {
				return err
			}
		}
		return nil
	}
}
