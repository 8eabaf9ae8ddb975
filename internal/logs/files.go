package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"berth/internal/fault"
)

// errPastUntil ends a Read whose time has come.
var errPastUntil = errors.New("past the wanted time")

func dirOf(path string) string { return filepath.Dir(path) }

func indexNewline(p []byte) int { return bytes.IndexByte(p, '\n') }

// logFile is an open file of a log.
type logFile struct {
	file   *os.File
	inode  uint64
	size   int64 // when it was opened
	offset int64 // of the first line that was not read
}

// openFile opens one file of a log; nil means that there is none.
func openFile(path string) (*logFile, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "open log file", path, "%w", err)
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = file.Close()
		return nil, fault.New(fault.Internal, "open log file", path, "not a regular file")
	}
	return &logFile{file: file, inode: inodeOf(info), size: info.Size()}, nil
}

func inodeOf(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// inodeAt returns the inode of the file of that name, 0 if there is none.
func inodeAt(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return inodeOf(info)
}

// fileSet is the files of a log, oldest first.
type fileSet struct{ files []logFile }

// openSet opens the current file and those before it. A rotation may happen
// meanwhile: it moves files in the direction of the search, so that one may be
// met twice, and leaves a gap that wanders. Files that turn out to be newer than
// the current one are dropped again; a follower finds them as its successors.
func openSet(path string) (*fileSet, error) {
	set := &fileSet{} // newest first until the end
	for i := 0; ; i++ {
		f, err := openFile(rotated(path, i))
		if err != nil {
			set.close()
			return nil, err
		}
		if f == nil {
			if i > 0 && inodeAt(rotated(path, i+1)) == 0 {
				break
			}
			continue
		}
		set.add(f)
	}
	slices.Reverse(set.files)
	return set, nil
}

// add appends a file unless it is there already. When it is the first one, the
// others were rotated in front of it.
func (s *fileSet) add(f *logFile) {
	at := slices.IndexFunc(s.files, func(have logFile) bool { return have.inode == f.inode })
	if at < 0 {
		s.files = append(s.files, *f)
		return
	}
	_ = f.file.Close()
	if at == 0 {
		for _, newer := range s.files[1:] {
			_ = newer.file.Close()
		}
		s.files = s.files[:1]
	}
}

func (s *fileSet) close() {
	for i := range s.files {
		_ = s.files[i].file.Close()
	}
	s.files = nil
}

// keepNewest takes the newest file out of the set; nil if the set is empty.
func (s *fileSet) keepNewest() *logFile {
	if len(s.files) == 0 {
		return nil
	}
	newest := s.files[len(s.files)-1]
	s.files = s.files[:len(s.files)-1]
	return &newest
}

// tail returns where the last n complete lines begin: the index of a file and
// an offset in it.
func (s *fileSet) tail(n int) (int, int64, error) {
	if len(s.files) == 0 {
		return 0, 0, nil
	}
	for i := len(s.files) - 1; i >= 0; i-- {
		offset, missing, err := tailOf(s.files[i].file, s.files[i].size, n)
		if err != nil {
			return 0, 0, fault.New(fault.Internal, "read log file", s.files[i].file.Name(), "%w", err)
		}
		if missing == 0 {
			return i, offset, nil
		}
		n = missing
	}
	return 0, 0, nil
}

// tailOf returns the offset at which the last n lines of a file begin, and how
// many the file has too few.
func tailOf(file io.ReaderAt, size int64, n int) (offset int64, missing int, err error) {
	buf := make([]byte, readSize)
	seen := -1 // newlines so far; the last one ends the last line
	for end := size; end > 0; {
		begin := max(0, end-int64(len(buf)))
		block := buf[:end-begin]
		if got, err := file.ReadAt(block, begin); err != nil && (err != io.EOF || got < len(block)) {
			return 0, 0, err
		}
		for i := bytes.LastIndexByte(block, '\n'); i >= 0; i = bytes.LastIndexByte(block[:i], '\n') {
			if seen++; seen == n {
				return begin + int64(i) + 1, 0, nil
			}
		}
		end = begin
	}
	if seen < 0 { // no complete line at all
		return 0, n, nil
	}
	return 0, n - seen - 1, nil
}
