package builds

import (
	"context"
	"os"

	"berth/internal/build/solve"
	"berth/internal/engine/session"
	"berth/internal/monitor"
)

// ShellOptions are a terminal session in a failed step's root.
type ShellOptions struct {
	Header        []byte // written to the connection before anything else
	Prefix        []byte // input that was read from the connection too early
	Height, Width uint   // of the terminal, in characters; 0 is not known
}

// BuildShell runs a shell in the root of a step that failed, with the step's
// mounts, user, directory and environment, on a terminal that conn leads to. It
// returns when the shell has ended, or ctx has.
func (s *Service) BuildShell(ctx context.Context, failed solve.Step, o ShellOptions, conn *os.File) error {
	return s.steps.shell(ctx, failed, o, conn)
}

// BuildShellResize sets the size of such a session's terminal, in characters.
func (s *Service) BuildShellResize(ctx context.Context, failed solve.Step, height, width uint16) error {
	return s.steps.m.Monitor.Resize(ctx, failed.ID, "", height, width)
}

func (s *Steps) shell(ctx context.Context, failed solve.Step, o ShellOptions, conn *os.File) error {
	failed.Args = []string{"/bin/sh"}
	rec := stepRecord(failed, s.m.Host)
	rec.Config.Tty, rec.Config.OpenStdin, rec.Config.StdinOnce = true, true, true
	rec.HostConfig.ConsoleSize = [2]uint{o.Height, o.Width}
	secrets, err := s.secrets(failed)
	defer secrets.remove(s.m.Log)
	if err != nil {
		return err
	}
	cleanup := context.WithoutCancel(ctx)
	defer s.forget(cleanup, rec)
	req, err := s.request(ctx, failed, rec, secrets)
	if err != nil {
		return err
	}
	req.OpenStdin, req.StdinOnce = true, true
	listening, stop := context.WithCancel(s.m.Life)
	defer stop()
	happenings := s.m.Monitor.Events(listening)
	attach := monitor.AttachRequest{ContainerID: rec.ID, Stdin: true, Stdout: true, Stderr: true, Prefix: o.Header}
	if err := session.HandOver(ctx, s.m.Monitor, attach, conn, o.Prefix); err != nil {
		return err
	}
	if _, err := s.m.Monitor.Start(cleanup, req); err != nil {
		session.Tell(conn, err, true)
		return nil
	}
	_, err = s.end(ctx, rec.ID, happenings)
	return err
}
