// Package terminal knows the terminal that a command runs on: whether there is
// one, how large it is, how to make it pass every key on, and which keys mean
// "leave the container running and give me my shell back".
package terminal

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Is reports whether f is a terminal.
func Is(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Size returns the rows and columns of f's terminal; ok is false when f is none
// or does not know.
func Size(f *os.File) (rows, columns uint, ok bool) {
	if f == nil {
		return 0, 0, false
	}
	var w, h int
	if err := withFd(f, func(fd int) (err error) {
		w, h, err = term.GetSize(fd)
		return err
	}); err != nil || w <= 0 || h <= 0 {
		return 0, 0, false
	}
	return uint(h), uint(w), true
}

// withFd runs do with f's descriptor, which stays f's for as long: somebody who
// watches a terminal may be late, and its number be another file's by then.
func withFd(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := conn.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// Raw makes f's terminal pass every key on unchanged. The returned function puts
// its former state back and may be called more than once.
func Raw(f *os.File) (restore func(), err error) {
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { _ = withFd(f, func(fd int) error { return term.Restore(fd, state) }) }, nil
}

// Colours reports whether escape sequences that colour text are welcome on f:
// see no-color.org.
func Colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && Is(f)
}

// Unicode reports whether the terminal's character set is UTF-8.
func Unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// Silence keeps f's terminal from showing what is typed, line by line as before.
// The returned function puts its former state back and may be called more than
// once.
func Silence(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, err
	}
	return func() {
		_ = withFd(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, before) })
	}, nil
}
