package layer

import (
	"archive/tar"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// castagnoli has the polynomial that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file writes a regular file.
func (u *unpacker) file(h *tar.Header, data io.Reader, dirfd int, real, base string) error {
	if h.Size > u.limits.MaxBytes-u.size { // of sparse files this is not what is in the archive
		return entryError(h.Name, ErrTooLarge, "with its %d bytes the files exceed %d bytes", h.Size, u.limits.MaxBytes)
	}
	fd := -1
	mode := uint32(h.Mode) & 0o7777
	_, err := u.tree.place(dirfd, real, base, func() (err error) {
		fd, err = unix.Openat(dirfd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The data of sparse entries are not in the order of the file, so they go
	// into the record; hardly any layer has such.
	u.tap.file = !isSparse(h)
	written, crc, err := u.copy(h, fd, data)
	if u.tap.file && h.Size > 0 {
		u.record.content(real, base, h.Size, crc)
	}
	u.tap.file = false
	if err != nil {
		return err
	}
	u.size += h.Size
	u.disk += blockSize + (written+blockSize-1)/blockSize*blockSize
	// Writing and changing the owner take away set-id bits and capabilities.
	if h.Uid != 0 || h.Gid != 0 {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if mode&^u.umask != mode || mode&0o7000 != 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	for name, value := range xattrs(h) {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			if !xattrRefused(name, err) {
				return fmt.Errorf("set attribute %q: %w", name, err)
			}
			u.skip++
		}
	}
	return futimens(fd, &u.times)
}

// copy writes an entry's data and returns how many bytes of it took space, and
// its checksum: long runs of zeros in large files become holes, those of sparse
// entries always.
func (u *unpacker) copy(h *tar.Header, fd int, data io.Reader) (written int64, crc uint32, err error) {
	holes := h.Size >= sparseFrom || isSparse(h)
	var offset int64
	for offset < h.Size {
		if err := u.ctx.Err(); err != nil {
			return written, crc, streamError(u.last, err)
		}
		want := u.buf
		if left := h.Size - offset; left < int64(len(want)) {
			want = want[:left]
		}
		n, err := io.ReadFull(data, want)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return written, crc, streamError(u.last, err)
		}
		crc = crc32.Update(crc, castagnoli, want)
		if holes && allZero(want) {
			offset += int64(n)
			continue
		}
		for b := want; len(b) > 0; {
			n, err := unix.Pwrite(fd, b, offset)
			if err != nil && err != unix.EINTR {
				return written, crc, err
			}
			if n > 0 {
				b = b[n:]
				offset += int64(n)
				written += int64(n)
			}
		}
	}
	if holes && written < h.Size {
		return written, crc, unix.Ftruncate(fd, h.Size)
	}
	return written, crc, nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// allZero compares a buffer with itself, shifted: as fast as memory is.
func allZero(b []byte) bool {
	if len(b) == 0 || b[0] != 0 || b[len(b)-1] != 0 || b[len(b)/2] != 0 {
		return len(b) == 0
	}
	return string(b[1:]) == string(b[:len(b)-1])
}

// xattrs returns the extended attributes of an entry by name.
func xattrs(h *tar.Header) map[string]string {
	var m map[string]string
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			if m == nil {
				m = map[string]string{}
			}
			m[unescapeXattr(name)] = value
		}
	}
	return m
}

// attributes sets owner, mode, attributes and times of what was made and is
// neither a file nor a directory.
func (u *unpacker) attributes(h *tar.Header, dirfd int, base string) error {
	u.disk += blockSize
	if h.Uid != 0 || h.Gid != 0 {
		if err := unix.Fchownat(dirfd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dirfd, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	for name, value := range xattrs(h) {
		// The last element is not followed, and the first leads to the
		// directory that is open, not to what its name is now.
		path := procPath(dirfd) + "/" + base
		if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
			if !xattrRefused(name, err) {
				return fmt.Errorf("set attribute %q: %w", name, err)
			}
			u.skip++
		}
	}
	return unix.UtimesNanoAt(dirfd, base, u.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// currentUmask reads the process's umask; the system call for it would change
// it for a moment, under the other threads' hands.
func currentUmask() uint32 {
	const key = "Umask:\t"
	data, err := os.ReadFile("/proc/self/status")
	if err == nil {
		if _, rest, ok := strings.Cut(string(data), key); ok {
			line, _, _ := strings.Cut(rest, "\n")
			if v, err := strconv.ParseUint(line, 8, 32); err == nil {
				return uint32(v)
			}
		}
	}
	return 0o777 // every mode is then set explicitly
}
