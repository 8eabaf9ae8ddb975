package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// errPastUntil ends a Read whose time has come.
var errPastUntil = errors.New("past the wanted time")

const (
	compressedSuffix = ".gz"
	temporarySuffix  = ".compressing" // of the log's name: what is being compressed
)

func dirOf(path string) string { return filepath.Dir(path) }

func indexNewline(p []byte) int { return bytes.IndexByte(p, '\n') }

// rotated returns the name of the i-th oldest file; 0 is the current one.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// present reports whether there is an i-th file, compressed or not.
func present(path string, i int) bool {
	name := rotated(path, i)
	return exists(name) || i > 0 && exists(name+compressedSuffix)
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// logFile is an open file of a log. Offsets and sizes are of what it holds, not
// of its compressed form.
type logFile struct {
	file   *os.File
	data   io.ReaderAt // the entries
	zipped bool
	id     FileID
	size   int64 // when it was opened; -1 if that is only known at its end
	offset int64 // of the first line that was not read
}

// openFile opens the i-th file of a log; nil means that there is none.
func openFile(path string, i int) (*logFile, error) {
	name := rotated(path, i)
	f, err := openPlain(name)
	if err != nil || f != nil || i == 0 {
		return f, err
	}
	if f, err = openPlain(name + compressedSuffix); f != nil {
		f.zipped, f.size = true, -1
		f.id = idOfCompressed(f.file)
		f.data = &inflater{file: f.file}
	}
	return f, err
}

func openPlain(path string) (*logFile, error) {
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
	return &logFile{file: file, data: file, id: idOfFile(file), size: info.Size()}, nil
}

// fileSet is the files of a log, oldest first.
type fileSet struct{ files []logFile }

// openSet opens the current file and those before it. A rotation may happen
// meanwhile: it moves files in the direction of the search, so that one may be
// met twice, and leaves a gap that wanders. Files that turn out to be newer than
// the current one are dropped again; a follower finds them as its successors.
// That holds for as long as the current file is not rotated out altogether: then
// the search begins anew.
func openSet(path string) (*fileSet, error) {
	for attempt := 1; ; attempt++ {
		set, err := collect(path)
		if err != nil {
			return nil, err
		}
		switch {
		case len(set.files) == 0 || remains(path, set.files[0].id):
		case attempt < maxAttempts:
			set.close()
			continue
		default:
			for _, older := range set.files[1:] {
				_ = older.file.Close()
			}
			set.files = set.files[:1]
		}
		slices.Reverse(set.files)
		return set, nil
	}
}

// maxAttempts bounds how often a log that is rotated out while it is being
// opened is looked at again.
const maxAttempts = 50

// remains reports whether a file is still one of the log.
func remains(path string, id FileID) bool {
	for i := 0; i == 0 || present(path, i) || present(path, i+1); i++ {
		if idAt(path, i) == id {
			return true
		}
	}
	return false
}

func collect(path string) (*fileSet, error) {
	set := &fileSet{} // newest first
	for i := 0; ; i++ {
		f, err := openFile(path, i)
		if err != nil {
			set.close()
			return nil, err
		}
		if f == nil {
			if i > 0 && !present(path, i+1) {
				break
			}
			continue
		}
		set.add(f)
	}
	return set, nil
}

// add appends a file unless it is there already. When it is the first one, the
// others were rotated in front of it.
func (s *fileSet) add(f *logFile) {
	at := s.find(f.id)
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

func (s *fileSet) find(id FileID) int {
	return slices.IndexFunc(s.files, func(have logFile) bool { return have.id == id })
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
		f := &s.files[i]
		var offset int64
		var missing int
		var err error
		if f.zipped {
			offset, missing, err = tailOfStream(f.data, n)
		} else {
			offset, missing, err = tailOf(f.data, f.size, n)
		}
		if err != nil {
			return 0, 0, fault.New(fault.Internal, "read log file", f.file.Name(), "%w", err)
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

// tailOfStream is tailOf for what can only be read from its beginning: it counts
// the lines, and then skips the first ones.
func tailOfStream(data io.ReaderAt, n int) (offset int64, missing int, err error) {
	lines, _, err := skipLines(data, -1)
	if err != nil || lines <= n {
		return 0, n - lines, err
	}
	_, offset, err = skipLines(data, lines-n)
	return offset, 0, err
}

// skipLines reads from the beginning until n lines have ended, all if n < 0. It
// returns how many did and where the next one begins.
func skipLines(data io.ReaderAt, n int) (lines int, offset int64, err error) {
	buf := make([]byte, readSize)
	for n < 0 || lines < n {
		got, err := data.ReadAt(buf, offset)
		block := buf[:got]
		if n < 0 || lines+bytes.Count(block, []byte{'\n'}) < n {
			lines += bytes.Count(block, []byte{'\n'})
			offset += int64(got)
		} else {
			for ; lines < n; lines++ {
				i := bytes.IndexByte(block, '\n')
				block = block[i+1:]
				offset += int64(i) + 1
			}
			return lines, offset, nil
		}
		if err == io.EOF || err == nil && got == 0 {
			return lines, offset, nil
		}
		if err != nil {
			return lines, offset, err
		}
	}
	return lines, offset, nil
}
