package main

import (
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// connectTerminal copies between our standard streams and a terminal's master,
// with ours in raw mode and of the same size. drained is closed when all output
// was copied; restore puts our terminal back.
func connectTerminal(master *os.File) (drained <-chan struct{}, restore func(), err error) {
	restore = func() {}
	stdin := int(os.Stdin.Fd())
	if term.IsTerminal(stdin) {
		old, err := term.MakeRaw(stdin)
		if err != nil {
			return nil, nil, err
		}
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, unix.SIGWINCH)
		go func() {
			for range resized {
				copySize(stdin, master)
			}
		}()
		copySize(stdin, master)
		restore = func() {
			signal.Stop(resized)
			close(resized)
			_ = term.Restore(stdin, old)
		}
	}
	done := make(chan struct{})
	go func() {
		// Reading ends with an error when the last process closed its side.
		_, _ = io.Copy(os.Stdout, master)
		close(done)
	}()
	go func() { _, _ = io.Copy(master, os.Stdin) }()
	return done, restore, nil
}

func copySize(from int, to *os.File) {
	if size, err := unix.IoctlGetWinsize(from, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(to.Fd()), unix.TIOCSWINSZ, size)
	}
}
