package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	goruntime "runtime"
	"strconv"
	"strings"

	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Exit codes of a shell.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// diagnose finds out why the user's program could not be executed. It looks at
// the program through the container's root; what it can't see it leaves to the
// error that the kernel gave.
func diagnose(root int, p *specs.Process, errno unix.Errno) *ExecError {
	name := p.Args[0]
	e := &ExecError{Path: name, Err: errno, Code: codeNotExecutable}
	if errno == unix.ENOENT {
		e.Code = codeNotFound
	}
	if root < 0 {
		return e
	}
	for _, candidate := range plan.Candidates(name, p.Env) {
		if !path.IsAbs(candidate) {
			candidate = path.Join("/", p.Cwd, candidate)
		}
		fd, err := inRoot(root, candidate, unix.O_PATH)
		if err != nil {
			continue
		}
		found := judge(root, fd, candidate, e)
		unix.Close(fd)
		if found {
			return e
		}
	}
	if errno == unix.ENOENT {
		if strings.Contains(name, "/") {
			e.Err = fmt.Errorf("%w", unix.ENOENT)
			e.Hint = "the image has no such file"
		} else {
			e.Err = errors.New("executable file not found in $PATH")
			e.Hint = "$PATH is " + searched(p.Env)
		}
	}
	return e
}

func searched(env []string) string {
	for _, v := range env {
		if list, ok := strings.CutPrefix(v, "PATH="); ok {
			return list
		}
	}
	return "not set"
}

// judge explains what is wrong with a file that exists. It returns false if
// nothing is.
func judge(root, fd int, name string, e *ExecError) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	deny := func(code int, hint string, format string, args ...any) bool {
		e.Code, e.Hint, e.Err = code, hint, fmt.Errorf(format, args...)
		return true
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return deny(codeNotExecutable, "name a file in it", "%s is a directory: %w", name, unix.EACCES)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return deny(codeNotExecutable, "", "%s is not a regular file: %w", name, unix.EACCES)
	case st.Mode&0o111 == 0:
		return deny(codeNotExecutable, "make it executable: chmod +x", "%s is not executable: %w", name, unix.EACCES)
	}
	// Opening a file that is known to be regular does not block.
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return judgeScript(root, head, name, deny)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return judgeELF(root, f, name, deny)
	case n == 0:
		return deny(codeNotExecutable, "", "%s is empty: %w", name, unix.ENOEXEC)
	case e.Err == unix.ENOEXEC:
		return deny(codeNotExecutable, "a script needs a first line such as #!/bin/sh", "%s is no program: %w", name, unix.ENOEXEC)
	case bytes.HasPrefix(head, []byte("MZ")):
		return deny(codeNotExecutable, "", "%s is a Windows program: %w", name, unix.ENOEXEC)
	}
	return false
}

type denier func(code int, hint, format string, args ...any) bool

func judgeScript(root int, head []byte, name string, deny denier) bool {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	crlf := bytes.HasSuffix(line, []byte("\r"))
	words := strings.Fields(strings.TrimRight(string(line), "\r"))
	if len(words) == 0 {
		return deny(codeNotExecutable, "", "%s names no interpreter in its first line: %w", name, unix.ENOEXEC)
	}
	if crlf {
		return deny(codeNotFound, "convert it to Unix line ends, for instance with dos2unix",
			"%s has Windows line ends (CRLF), so its interpreter is %q with a carriage return: %w", name, words[0], unix.ENOENT)
	}
	fd, err := inRoot(root, words[0], unix.O_PATH)
	if err != nil {
		return deny(codeNotFound, "install it in the image", "the interpreter %s of the script %s is missing: %w", words[0], name, unix.ENOENT)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0) {
		return deny(codeNotExecutable, "", "the interpreter %s of the script %s is not executable: %w", words[0], name, unix.EACCES)
	}
	return false
}

func judgeELF(root int, f *os.File, name string, deny denier) bool {
	x, err := readELF(f)
	if err != nil {
		return deny(codeNotExecutable, "", "%s is a damaged executable (%v): %w", name, err, unix.ENOEXEC)
	}
	if !x.native() {
		return deny(codeNotExecutable, "use an image for this platform, or install an emulator: apt-get install qemu-user-static binfmt-support",
			"exec format error: %s is built for %s and this machine is %s: %w", name, x.platform(), goruntime.GOARCH, unix.ENOEXEC)
	}
	if x.loader == "" {
		return false
	}
	fd, err := inRoot(root, x.loader, unix.O_PATH)
	if err != nil {
		return deny(codeNotFound, "the program was linked for another C library, or the image lacks it: link it statically or use a fitting base image",
			"the loader %s of %s is missing: %w", x.loader, name, unix.ENOENT)
	}
	unix.Close(fd)
	return false
}
