package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

const execExample = `  berth exec -it web sh
  berth exec -u 0 -w /etc web cat passwd`

// execFlags are the flags of exec.
type execFlags struct {
	detach     bool
	detachKeys string
	stdin, tty bool
	envFile    []string
	env        []string
	request    client.ExecRequest
}

func buildExec(a *app, cmd *cobra.Command) {
	f := &execFlags{}
	fs := cmd.Flags()
	fs.BoolVarP(&f.detach, "detach", "d", false, "leave it in the background")
	fs.StringVar(&f.detachKeys, "detach-keys", "", "`KEYS` leave it running at these (ctrl-p,ctrl-q)")
	spec.List(fs, &f.env, "env", "e", "`NAME[=VALUE]` set a variable, or pass the caller's on")
	spec.List(fs, &f.envFile, "env-file", "", "`FILE` read variables from it")
	fs.BoolVarP(&f.stdin, "interactive", "i", false, "keep standard input open")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	fs.BoolVar(&f.request.Privileged, "privileged", false, "give it every capability")
	fs.StringVarP(&f.request.User, "user", "u", "", "`USER[:GROUP]` run as this user, by name or number")
	fs.StringVarP(&f.request.WorkingDir, "workdir", "w", "", "`DIR` working directory of the command")
	fs.SetInterspersed(false)
	cmd.Args = atLeast(2, "a container and a command")
	cmd.ValidArgsFunction = a.completeContainers("running")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.exec(cmd, f, args[0], args[1:])
	}
}

func (a *app) exec(cmd *cobra.Command, f *execFlags, ref string, argv []string) error {
	ctx := cmd.Context()
	keys, err := terminal.ParseDetachKeys(f.detachKeys)
	if err != nil {
		return err
	}
	request := &f.request
	if request.Env, err = spec.Environment(f.envFile, f.env); err != nil {
		return err
	}
	request.Cmd, request.Tty, request.DetachKeys = argv, f.tty, f.detachKeys
	if !f.detach {
		request.AttachStdin, request.AttachStdout, request.AttachStderr = f.stdin, true, true
	}
	if f.tty && f.stdin && !f.detach && !terminal.Is(a.in) {
		return wrong("standard input is not a terminal").WithHint("leave out -t to feed the command from a pipe or file")
	}
	start := client.ExecStartRequest{Tty: f.tty}
	if size := a.consoleSize(); f.tty && size != [2]uint{} {
		request.ConsoleSize, start.ConsoleSize = &size, &size
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	id, err := c.ExecCreate(ctx, ref, request)
	if err != nil {
		return a.missingContainer(cmd, c, ref, err)
	}
	if f.detach {
		return execFailure(c.ExecStartDetached(ctx, id, start))
	}
	stream, err := c.ExecStart(ctx, id, start)
	if err != nil {
		return execFailure(err)
	}
	s := &session{app: a, stream: stream, tty: f.tty, out: a.out, err: a.err, detachKeys: keys, restore: func() {}}
	if f.stdin {
		s.in = a.in
	}
	s.resize = func(rows, columns uint) { _ = c.ExecResize(context.Background(), id, rows, columns) }
	if err := s.copy(); errors.Is(err, terminal.ErrDetach) {
		fmt.Fprintf(a.err, "\r\nberth: the command goes on in the background\n")
		return nil
	} else if err != nil && !client.Broken(err) && !errors.Is(err, io.EOF) {
		return err
	}
	return execStatus(ctx, c, id)
}

// execFailure gives a command that could not be started its exit code.
func execFailure(err error) error {
	if err == nil {
		return nil
	}
	err = startFailure(err)
	var e *exit
	if errors.As(err, &e) && e.code == codeEngine {
		e.code = codeCannotRun
	}
	return err
}

// execPatience is how long an engine may take from the end of a command's output
// to knowing how it ended.
const execPatience = 2 * time.Second

// execStatus returns how a command ended; an engine that went away meanwhile is
// waited for, or started again. The API has no wait for such commands, so one
// that still runs although its output ended is asked about again.
func execStatus(ctx context.Context, c *client.Client, id string) error {
	state, err := c.ExecState(ctx, id)
	for pause := time.Millisecond; err == nil && state.Running && pause < execPatience; pause *= 2 {
		time.Sleep(pause)
		state, err = c.ExecState(ctx, id)
	}
	for tries := 0; client.Broken(err) && tries < reconnectTries; tries++ {
		if err = c.Reconnect(ctx); err != nil {
			break
		}
		state, err = c.ExecState(ctx, id)
	}
	switch {
	case err != nil:
		return fmt.Errorf("how the command ended is not known: %w", err)
	case state.Running || state.ExitCode == nil:
		return &exit{codeFailed, wrong("the command's output ended, and it still runs")}
	case *state.ExitCode != 0:
		return &exit{*state.ExitCode, nil}
	}
	return nil
}
