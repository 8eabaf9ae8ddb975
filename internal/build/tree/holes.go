package tree

import (
	"context"
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of Stat_t.Blocks, in bytes.
const blockSize = 512

// copyData copies the content of the file src, whose state is st, to dst, which is
// empty. What st does not say room is taken for may be holes, which stay holes: a disk
// image of a hundred gigabytes may have a few megabytes of data.
func copyData(ctx context.Context, dst, src int, st *unix.Stat_t, buf []byte) error {
	if st.Blocks*blockSize >= st.Size {
		_, err := copyBuffer(ctx, fdFile(dst), fdFile(src), buf)
		return err
	}
	for at := int64(0); ; {
		from, to, err := nextData(src, at)
		if err == unix.ENXIO { // a hole up to the end
			break
		}
		if err == nil {
			_, err = unix.Seek(dst, from, io.SeekStart)
		}
		if err != nil {
			return err
		}
		n, err := copyBuffer(ctx, fdFile(dst), io.LimitReader(fdFile(src), to-from), buf)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if at = from + n; at < to {
			break // it ends here
		}
	}
	var now unix.Stat_t
	if err := unix.Fstat(src, &now); err != nil {
		return err
	}
	return unix.Ftruncate(dst, now.Size)
}

// nextData finds the next piece of a file that is no hole, and goes to its beginning;
// ENXIO when there is none (lseek(2)). Of a file system that does not know its holes
// it is all that is left.
func nextData(fd int, at int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if err == nil {
		to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	} else if err != unix.ENXIO {
		from, to, err = at, math.MaxInt64, nil
	}
	if err == nil {
		_, err = unix.Seek(fd, from, io.SeekStart)
	}
	return from, to, err
}
