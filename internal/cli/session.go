package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/cli/terminal"
	"berth/internal/client"
)

// session is one attachment of this process's standard streams to a process in
// a container.
type session struct {
	app        *app
	stream     *client.Stream
	tty        bool
	in         *os.File // nil when standard input is not attached
	out, err   io.Writer
	detachKeys []byte
	resize     func(rows, columns uint) // nil when the size is not wanted
	signal     func(name string)        // nil when signals are not passed on
	// redraw makes the program draw its screen anew for somebody who comes late.
	redraw bool
	// logs shows the output instead of the stream when an engine died before it
	// could grant one; nil otherwise.
	logs func() error
	// early holds signals that came while the process was being started.
	early chan os.Signal

	detached atomic.Bool
	restore  func()
	fresh    bool     // the container's log begins with this session
	shown    [2]int64 // bytes of standard output and error so far
}

const (
	// lostAfter is how long after its output ended a container is taken to have
	// ended too; later the stream is suspected to have broken.
	lostAfter = 250 * time.Millisecond
	// maxReplay is how much output may have been shown for the rest to be taken
	// from the log: less than what any engine keeps before it begins a new file.
	maxReplay = 4 << 20
)

// counter counts what passes through it.
type counter struct {
	io.Writer
	n *int64
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	*c.n += int64(n)
	return n, err
}

// skipper drops the first bytes that are written to it.
type skipper struct {
	io.Writer
	left int64
}

func (s *skipper) Write(p []byte) (int, error) {
	drop := min(s.left, int64(len(p)))
	s.left -= drop
	if drop == int64(len(p)) {
		return len(p), nil
	}
	n, err := s.Writer.Write(p[drop:])
	return n + int(drop), err
}

// end returns how the container ended, after the output has. When the output
// ended and the container has not, the stream broke, and what is missing is in
// the log.
func (s *session) end(ctx context.Context, c *client.Client, id string, ended <-chan ending) ending {
	select {
	case e := <-ended:
		return e
	case <-time.After(lostAfter):
	}
	if s.fresh && s.in == nil && s.stream != nil && s.shown[0]+s.shown[1] < maxReplay {
		out, errs := &skipper{s.out, s.shown[0]}, &skipper{s.err, s.shown[1]}
		_ = c.ContainerLogs(ctx, id, client.LogsOptions{Follow: true}, out, errs) // without a log there is nothing to show
	}
	return <-ended
}

// insistence is how many interrupts in a row end the session whatever the
// process in the container does with them.
const insistence = 3

// copy moves data until the output ends or the user detaches. It returns
// terminal.ErrDetach in the latter case.
func (s *session) copy() error {
	if s.tty && s.in != nil && terminal.Is(s.in) {
		restore, err := terminal.Raw(s.in)
		if err != nil {
			return fmt.Errorf("set the terminal up: %w", err)
		}
		s.restore = restore
	}
	defer func() { s.restore() }()
	if s.tty && s.resize != nil {
		defer s.followSize()()
	}
	if s.early != nil {
		go s.passSignals()
	}
	if s.logs != nil {
		return s.logs()
	}
	if s.in != nil {
		go s.sendInput()
	}
	err := s.receiveOutput()
	if s.detached.Load() {
		return terminal.ErrDetach
	}
	return err
}

func (s *session) receiveOutput() error {
	if s.tty {
		_, err := io.Copy(counter{s.out, &s.shown[0]}, onlyReader{s.stream})
		return err
	}
	return client.Demultiplex(counter{s.out, &s.shown[0]}, counter{s.err, &s.shown[1]}, s.stream)
}

// onlyReader and onlyWriter hide what would make io.Copy choose the splice path,
// whose pipe costs more than it saves for a terminal's trickle.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func (s *session) sendInput() {
	var in io.Reader = s.in
	if s.tty && len(s.detachKeys) > 0 {
		in = terminal.NewDetachReader(s.in, s.detachKeys)
	}
	_, err := io.Copy(onlyWriter{s.stream}, onlyReader{in})
	if errors.Is(err, terminal.ErrDetach) {
		s.detached.Store(true)
		_ = s.stream.Close()
		return
	}
	_ = s.stream.CloseWrite()
}

// followSize sends the terminal's size now and whenever it changes, until stop.
func (s *session) followSize() (stop func()) {
	t := s.app.outTerminal()
	if t == nil {
		return func() {}
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	go func() {
		if rows, columns, ok := terminal.Size(t); ok && s.redraw { // only a change of size is noticed
			s.resize(rows+1, columns+1)
		}
		for {
			if rows, columns, ok := terminal.Size(t); ok {
				s.resize(rows, columns)
			}
			if _, more := <-changes; !more {
				return
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(changes)
	}
}

// outTerminal returns the terminal whose size a container's terminal takes on.
func (a *app) outTerminal() *os.File {
	if t := terminalOf(a.out); t != nil {
		return t
	}
	if terminal.Is(a.in) {
		return a.in
	}
	return nil
}

// consoleSize returns the size of the terminal for a container's creation.
func (a *app) consoleSize() (size [2]uint) {
	if t := a.outTerminal(); t != nil {
		if rows, columns, ok := terminal.Size(t); ok {
			size = [2]uint{rows, columns}
		}
	}
	return size
}

// catchSignals begins to hold the signals that a container is to get.
func catchSignals() chan os.Signal {
	caught := make(chan os.Signal, 16)
	signals := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGTERM, syscall.SIGCONT, syscall.SIGIO, syscall.SIGPWR, syscall.SIGVTALRM}
	signal.Notify(caught, signals...)
	return caught
}

// dropSignals gives signals their usual meaning back. Nobody waits for it: each signal
// costs two switches between threads, and most commands are over now.
func (s *session) dropSignals() {
	if s.early != nil {
		go func() {
			signal.Stop(s.early)
			close(s.early)
		}()
	}
}

// passSignals sends the caught signals on. Somebody who interrupts three times
// wants the prompt back.
func (s *session) passSignals() {
	interrupts := 0
	for caught := range s.early {
		number, ok := caught.(syscall.Signal)
		if !ok {
			continue
		}
		if number == syscall.SIGINT || number == syscall.SIGTERM {
			interrupts++
		}
		s.signal(signalName(number))
		if interrupts >= insistence {
			s.restore()
			s.app.complain(wrong("interrupted %d times: leaving, and the container goes on", interrupts).
				WithHint("stop it with 'berth stop' or 'berth kill'"))
			os.Exit(codeFailed)
		}
	}
}

// signalName returns a signal's name as the API takes it.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprint(int(s))
}

// startFailure gives the exit code of a container or process that could not be
// started: the one the engine says, else the one its words mean.
func startFailure(err error) error {
	var refusal *client.Refusal
	if !errors.As(err, &refusal) {
		return &exit{codeEngine, err}
	}
	switch refusal.ExitCode {
	case "126":
		return &exit{codeCannotRun, err}
	case "127":
		return &exit{codeNotFound, err}
	}
	switch text := refusal.Message; {
	case contains(text, "executable file not found", "no such file or directory", "not found in $PATH"):
		return &exit{codeNotFound, err}
	case contains(text, "permission denied", "is a directory", "exec format error"):
		return &exit{codeCannotRun, err}
	}
	return &exit{codeEngine, err}
}

// reconnectTries bounds how often one wait survives the death of its engine.
const reconnectTries = 100

// ending is how a container ended.
type ending struct {
	code int
	err  error // why the code is not known
}

// awaitEnd begins to wait for how a container ends, beside whatever else is done
// meanwhile: an engine that dies is called back while the container still runs,
// so that the new one sees it end.
func awaitEnd(ctx context.Context, c *client.Client, w *client.Waiting, id, condition string) <-chan ending {
	ended := make(chan ending, 1)
	go func() {
		code, err := exitStatus(ctx, c, w, id, condition)
		ended <- ending{code, err}
	}()
	return ended
}

// failure returns the error that ends the program as the container ended.
func (e ending) failure() error {
	if e.code == 0 && e.err == nil {
		return nil
	}
	return &exit{e.code, e.err}
}

// exitStatus waits for how a container ended. An engine that goes away meanwhile
// is waited for, or started again, because the container does not die with it.
func exitStatus(ctx context.Context, c *client.Client, w *client.Waiting, id, condition string) (int, error) {
	if condition == client.WaitNextExit { // it may have come already when a wait is asked for again
		condition = client.WaitNotRunning
	}
	result, err := w.Result()
	for tries := 0; client.Broken(err) && tries < reconnectTries; tries++ {
		if err = c.Reconnect(ctx); err != nil {
			return codeEngine, err
		}
		if w, err = c.BeginWait(ctx, id, condition); err == nil {
			result, err = w.Result()
		}
	}
	if err != nil {
		return codeEngine, fmt.Errorf("how the container ended is not known: %w", err)
	}
	if result.Error != nil && result.Error.Message != "" {
		return codeEngine, errors.New(result.Error.Message)
	}
	return int(result.StatusCode), nil
}
