package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"berth/internal/cli/terminal"
	"berth/internal/credentials"
	"berth/internal/fault"
)

// authFor returns who asks the registry of an image, as the engine takes it.
func authFor(ctx context.Context, ref string) (string, error) {
	config, err := credentials.Open()
	if err != nil {
		return "", err
	}
	auth, err := config.For(ctx, credentials.KeyOf(ref))
	if err != nil {
		return "", err
	}
	return auth.Header(), nil
}

// authOrNobody is authFor for what most registries give to everybody: when the
// credentials cannot be had, that is said, and the registry is asked anonymously.
func (a *app) authOrNobody(ctx context.Context, ref string) string {
	auth, err := authFor(ctx, ref)
	if err != nil {
		a.warn("asking the registry anonymously: %v", err)
	}
	return auth
}

// warn tells something that does not keep the command from going on.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "berth: warning: "+format+"\n", args...)
}

// withLoginHint says how to log in when a registry wants to know who asks.
func withLoginHint(ref string, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) && f.Hint != "" {
		return err
	}
	text := err.Error()
	if contains(text, "berth login") { // the engine has said so
		return err
	}
	if !fault.Is(err, fault.Unauthorized) && !contains(text, "unauthorized", "denied", "authentication required", "no basic auth") {
		return err
	}
	registry := ""
	if key := credentials.KeyOf(ref); key != credentials.Key("") {
		registry = " " + key
	}
	return fault.New(fault.Unauthorized, "", "", "%w", err).WithHint("log in first: berth login%s", registry)
}

// askSecret prompts for something that is not to be shown. The terminal is silent
// before the prompt, so that nothing typed ahead shows; an interrupt puts it back
// before it ends the program.
func (a *app) askSecret(prompt string) (string, error) {
	restore, err := terminal.Silence(a.in)
	if err != nil {
		return "", err
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case <-interrupts:
			restore()
			fmt.Fprintln(a.err)
			os.Exit(128 + int(syscall.SIGINT))
		case <-done:
		}
	}()
	fmt.Fprint(a.err, prompt)
	text, err := a.readLine()
	signal.Stop(interrupts)
	close(done)
	restore()
	fmt.Fprintln(a.err)
	return text, err
}

// readLine reads one line of standard input and nothing that follows it.
func (a *app) readLine() (string, error) {
	var text []byte
	var one [1]byte
	for len(text) < maxPassword {
		n, err := a.in.Read(one[:])
		switch {
		case n > 0 && one[0] == '\n':
			return strings.TrimSuffix(string(text), "\r"), nil
		case n > 0:
			text = append(text, one[0])
		case err != nil && len(text) > 0:
			return string(text), nil
		case err != nil:
			return "", err
		}
	}
	return "", wrong("that line is too long")
}
