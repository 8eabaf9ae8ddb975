package worker

import (
	"os"

	"berth/internal/fault"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/stdio"
	"berth/internal/runtime"

	"golang.org/x/sys/unix"
)

// pipes are the two sides of a process's standard streams.
type pipes struct {
	ours   stdio.Files
	theirs runtime.Stdio
}

// The FIFOs of a container. They are files so that a successor finds them even
// when both processes of the monitor were killed.
var fifoNames = [3]string{"stdin", "stdout", "stderr"}

// makeFifos makes the standard streams of a container. Its side of the outputs
// is opened for reading too: then it never loses its last reader, and nobody's
// death is a SIGPIPE.
func makeFifos(p *process, stdin, tty bool) (s pipes, err error) {
	s.ours = stdio.NoFiles
	defer func() {
		if err != nil {
			s.close()
			err = fault.Wrap("make standard streams", p.c.id, err)
		}
	}()
	if tty {
		return s, s.makeTTYFifo(p)
	}
	if stdin {
		path := p.path(fifoNames[0])
		if err = mkfifo(path); err != nil {
			return s, err
		}
		// Opening for both directions does not wait for the other side.
		if s.ours.Stdin, err = unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return s, err
		}
		if s.theirs[0], err = openFifo(path, unix.O_RDONLY); err != nil {
			return s, err
		}
	}
	for i := range 2 {
		path := p.path(fifoNames[1+i])
		if err = mkfifo(path); err != nil {
			return s, err
		}
		if s.theirs[1+i], err = openFifo(path, unix.O_RDWR); err != nil {
			return s, err
		}
		if s.ours.Out[i], err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return s, err
		}
	}
	return s, nil
}

// makeTTYFifo makes the pipe that a terminal's output passes through.
func (s *pipes) makeTTYFifo(p *process) error {
	path := p.path(fifoNames[1])
	err := mkfifo(path)
	if err == nil {
		s.ours.Out[0], s.ours.TTYIn, err = openTTYFifo(path)
	}
	return err
}

func openTTYFifo(path string) (r, w int, err error) {
	if r, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if w, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		_ = unix.Close(r)
		return -1, -1, err
	}
	return r, w, nil
}

// mkfifo makes a FIFO that any user inside the container may open again by way
// of /dev/stdout. Outside, the directory is closed to others.
func mkfifo(path string) error {
	if err := unix.Mkfifo(path, 0o666); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	if err := unix.Chmod(path, 0o666); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

func openFifo(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makePipes makes the standard streams of an exec. They are plain pipes: what
// an exec leaves running in the background must not block on an output that
// nobody empties any more.
func makePipes(stdin, tty bool) (s pipes, err error) {
	s.ours = stdio.NoFiles
	defer func() {
		if err != nil {
			s.close()
			err = fault.New(fault.Exhausted, "make standard streams", "", "%w", err)
		}
	}()
	if tty {
		var fds [2]int
		if err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err == nil {
			s.ours.Out[0], s.ours.TTYIn = fds[0], fds[1]
		}
		return s, err
	}
	for i := range s.theirs {
		if i == 0 && !stdin {
			continue
		}
		var fds [2]int
		if err = unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return s, err
		}
		ours, theirs := fds[0], fds[1]
		if i == 0 {
			ours, theirs = theirs, ours
			s.ours.Stdin = ours
		} else {
			s.ours.Out[i-1] = ours
		}
		s.theirs[i] = os.NewFile(uintptr(theirs), "pipe")
		if err = unix.SetNonblock(ours, true); err != nil {
			return s, err
		}
	}
	return s, nil
}

// hold adds our side to what the keeper keeps.
func (s *pipes) hold(m *keeper.Message) {
	m.Add(keeper.LabelStdin, s.ours.Stdin)
	m.Add(keeper.LabelStdout, s.ours.Out[0])
	m.Add(keeper.LabelStderr, s.ours.Out[1])
	m.Add(keeper.LabelTTYIn, s.ours.TTYIn)
}

// closeTheirs closes the process's side once it has it.
func (s *pipes) closeTheirs() {
	for i, file := range s.theirs {
		if file != nil {
			_ = file.Close()
		}
		s.theirs[i] = nil
	}
}

func (s *pipes) close() {
	s.closeTheirs()
	for _, fd := range []int{s.ours.Stdin, s.ours.Out[0], s.ours.Out[1], s.ours.TTY, s.ours.TTYIn} {
		closeFD(fd)
	}
	s.ours = stdio.NoFiles
}
