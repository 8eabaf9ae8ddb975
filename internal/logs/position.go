package logs

import (
	"encoding/binary"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileID tells the files of a log apart, whatever they are called meanwhile and
// whether they are compressed. The time of birth is there because the inode
// number of a file that was compressed may be used again; file systems that do
// not know it count inodes upwards.
type FileID struct {
	Inode uint64
	Birth int64 `json:",omitempty"` // Unix nanoseconds; 0 where the file system does not know
}

// Position is a place between two entries of a log.
type Position struct {
	File   FileID
	Offset int64 // in the file as it was before it was compressed
}

// fileID returns the identity of the file at path, relative to the descriptor
// dir; zero if there is none.
func fileID(dir int, path string, flags int) FileID {
	var x unix.Statx_t
	if err := unix.Statx(dir, path, flags, unix.STATX_INO|unix.STATX_BTIME, &x); err == nil {
		id := FileID{Inode: x.Ino}
		if x.Mask&unix.STATX_BTIME != 0 {
			id.Birth = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
		}
		return id
	}
	return FileID{}
}

func idOfPath(path string) FileID { return fileID(unix.AT_FDCWD, path, 0) }

func idOfFile(file *os.File) FileID { return fileID(int(file.Fd()), "", unix.AT_EMPTY_PATH) }

// The identity of a file that was compressed lies in a field of its own of the
// gzip header: two letters, the size, and two numbers.
const (
	idFieldSize = 4 + 16
	gzipExtra   = 4  // the flag that says that there are such fields
	gzipFixed   = 10 // bytes of the header before them
)

func (id FileID) field() []byte {
	field := []byte{'B', 'L', 16, 0}
	field = binary.LittleEndian.AppendUint64(field, id.Inode)
	return binary.LittleEndian.AppendUint64(field, uint64(id.Birth))
}

// idOfCompressed returns the identity that a compressed file had before. One
// that somebody else compressed has its own.
func idOfCompressed(file *os.File) FileID {
	var h [gzipFixed + 2 + idFieldSize]byte
	if n, _ := file.ReadAt(h[:], 0); n == len(h) && h[0] == 0x1f && h[1] == 0x8b && h[3]&gzipExtra != 0 {
		if f := h[gzipFixed+2:]; f[0] == 'B' && f[1] == 'L' && f[2] == 16 && f[3] == 0 {
			return FileID{
				Inode: binary.LittleEndian.Uint64(f[4:]),
				Birth: int64(binary.LittleEndian.Uint64(f[12:])),
			}
		}
	}
	return idOfFile(file)
}

// idAt returns the identity of the i-th file of a log, zero if there is none.
func idAt(path string, i int) FileID {
	name := rotated(path, i)
	if id := idOfPath(name); id.Inode != 0 || i == 0 {
		return id
	}
	file, err := os.OpenFile(name+compressedSuffix, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return FileID{}
	}
	defer file.Close()
	return idOfCompressed(file)
}
