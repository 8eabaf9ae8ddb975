package layer

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// losses keeps what later entries of an archive replace: it has no place in the
// tree any more, and yet the archive cannot be written again without it. Each
// loss is moved, whole, to lost/<number>; lost/index has for each, in order,
//
//	uvarint(content frames recorded before it), uvarint(length of path), path
//
// so a frame's path is to be looked for in the first loss of that path, or of
// a directory above it, that came after the frame.
const (
	lostName  = "lost"
	lostIndex = "index"
	// Few archives name a file twice and none does so thousands of times. The
	// index is in memory when such a layer is exported.
	mostLosses    = 1 << 12
	mostLostPaths = 4 << 20 // bytes of all their paths
)

// lossWriter moves losses away.
type lossWriter struct {
	dir   string // lost
	fd    int    // of dir, once it is made; else -1
	index *os.File
	n     int
	paths int
}

// keep moves name of the directory dirfd, whose path in the tree is p, out of
// the tree. frames content frames have been recorded. It reports false, and
// moves nothing, when there have been too many already.
func (l *lossWriter) keep(dirfd int, name, p string, frames int64) (bool, error) {
	if l.n == mostLosses || l.paths+len(p) > mostLostPaths {
		return false, nil
	}
	if l.fd < 0 {
		if err := l.begin(); err != nil {
			return false, err
		}
	}
	b := binary.AppendUvarint(nil, uint64(frames))
	b = binary.AppendUvarint(b, uint64(len(p)))
	if _, err := l.index.Write(append(b, p...)); err != nil {
		return false, err
	}
	if err := unix.Renameat(dirfd, name, l.fd, strconv.Itoa(l.n)); err != nil {
		return false, err
	}
	l.n++
	l.paths += len(p)
	return true, nil
}

func (l *lossWriter) begin() (err error) {
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return err
	}
	if l.index, err = os.OpenFile(filepath.Join(l.dir, lostIndex), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	l.fd, err = unix.Open(l.dir, dirFlags|unix.O_NOFOLLOW, 0)
	return err
}

func (l *lossWriter) close() error {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
	if l.index == nil {
		return nil
	}
	err := l.index.Close()
	l.index = nil
	return err
}

// losses is the index of a layer, by path.
type losses map[string][]loss

type loss struct {
	frames int64
	number int
}

// readLosses reads a layer's index; a layer without losses has none.
func readLosses(dir string) (losses, error) {
	f, err := os.Open(filepath.Join(dir, lostName, lostIndex))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := losses{}
	in := bufio.NewReader(f)
	for number := 0; ; number++ {
		frames, err := binary.ReadUvarint(in)
		if err == io.EOF {
			return all, nil
		}
		n, err2 := binary.ReadUvarint(in)
		if err != nil || err2 != nil || n > maxPath || number >= mostLosses {
			return nil, errRecord
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, errRecord
		}
		all[string(b)] = append(all[string(b)], loss{int64(frames), number})
	}
}

// find returns where the content of the given frame is: below lost, or "" when
// it is in the tree.
func (l losses) find(p string, frame int64) string {
	if l == nil {
		return ""
	}
	found, rest := -1, ""
	for prefix := p; ; {
		all := l[prefix]
		i, _ := slices.BinarySearchFunc(all, frame, func(one loss, frame int64) int {
			return cmp.Compare(one.frames, frame+1)
		})
		if i < len(all) && (found < 0 || all[i].number < found) {
			found, rest = all[i].number, p[len(prefix):]
		}
		slash := strings.LastIndexByte(prefix, '/')
		if slash < 0 {
			break
		}
		prefix = prefix[:slash]
	}
	if found < 0 {
		return ""
	}
	return strconv.Itoa(found) + rest
}
