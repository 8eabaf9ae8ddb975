package engine

import (
	"context"
	"os"

	"berth/internal/build/solve"
	"berth/internal/monitor"
)

// BuildShellOptions are a terminal session in a failed step's root.
type BuildShellOptions struct {
	Header        []byte // written to the connection before anything else
	Prefix        []byte // input that was read from the connection too early
	Height, Width uint   // of the terminal, in characters; 0 is not known
}

// BuildShell runs a shell in the root of a step that failed, with the step's
// mounts, user, directory and environment, on a terminal that conn leads to. It
// returns when the shell has ended, or ctx has.
func (e *Engine) BuildShell(ctx context.Context, failed solve.Step, o BuildShellOptions, conn *os.File) error {
	failed.Args = []string{"/bin/sh"}
	rec := stepRecord(failed, e.host)
	rec.Config.Tty, rec.Config.OpenStdin, rec.Config.StdinOnce = true, true, true
	rec.HostConfig.ConsoleSize = [2]uint{o.Height, o.Width}
	secrets, err := e.stepSecrets(failed)
	defer secrets.remove(e)
	if err != nil {
		return err
	}
	cleanup := context.WithoutCancel(ctx)
	defer e.forgetStep(cleanup, rec.ID)
	req, err := e.stepRequest(ctx, failed, rec, secrets)
	if err != nil {
		return err
	}
	req.OpenStdin, req.StdinOnce = true, true
	listening, stop := context.WithCancel(e.life)
	defer stop()
	happenings := e.monitor.Events(listening)
	attach := monitor.AttachRequest{ContainerID: rec.ID, Stdin: true, Stdout: true, Stderr: true, Prefix: o.Header}
	if err := e.handOver(cleanup, attach, conn, o.Prefix); err != nil {
		return err
	}
	if _, err := e.monitor.Start(cleanup, req); err != nil {
		tellOnConnection(conn, err, true)
		return nil
	}
	_, err = e.stepEnd(ctx, rec.ID, happenings)
	return err
}

// BuildShellResize sets the size of such a session's terminal, in characters.
func (e *Engine) BuildShellResize(ctx context.Context, failed solve.Step, height, width uint16) error {
	return e.monitor.Resize(ctx, failed.ID, "", height, width)
}

// forgetStep leaves nothing of a step behind, whoever stopped listening.
func (e *Engine) forgetStep(ctx context.Context, id string) {
	if err := e.monitor.Forget(ctx, id); err != nil {
		e.log.Warn("forget build step", "step", id, "error", err)
	}
	if err := e.network.Detach(ctx, id); err != nil {
		e.log.Warn("detach build step from its network", "step", id, "error", err)
	}
}
