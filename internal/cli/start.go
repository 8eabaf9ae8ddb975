package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/terminal"
	"berth/internal/client"
)

// parallel is how many containers one command works on at a time.
const parallel = 16

// each does something to every reference, several at a time, and prints what
// was done, what the engine remarked and what failed in the order of the
// references. Its error says nothing more.
func (a *app) each(cmd *cobra.Command, refs []string, do func(ctx context.Context, c *client.Client, ref string) error) error {
	return a.eachOf(cmd, refs, containerNamesOf, do)
}

// eachOf is each for other things than containers; names lists what there is, for
// the sake of those who mistyped.
func (a *app) eachOf(cmd *cobra.Command, refs []string, names lister, do func(ctx context.Context, c *client.Client, ref string) error) error {
	c, err := a.engine()
	if err != nil {
		return err
	}
	failures, notices := make([]error, len(refs)), make([]string, len(refs))
	one := func(i int) {
		ctx := client.WithNotice(cmd.Context(), func(text string) { notices[i] = text })
		failures[i] = again(ctx, c, func(ctx context.Context) error { return do(ctx, c, refs[i]) })
	}
	if len(refs) == 1 {
		one(0)
	} else {
		inParallel(len(refs), one)
	}
	failed := false
	for i, ref := range refs {
		if notices[i] != "" {
			fmt.Fprintf(a.err, "berth: %s: %s\n", ref, notices[i])
		}
		if failures[i] == nil {
			fmt.Fprintln(a.out, ref)
			continue
		}
		failed = true
		a.complain(meant(cmd.Context(), c, ref, names, failures[i]))
	}
	if failed {
		return &exit{codeFailed, nil}
	}
	return nil
}

// secondKey marks the context of a second attempt.
type secondKey struct{}

func isSecond(ctx context.Context) bool { return ctx.Value(secondKey{}) != nil }

// again does something whose repetition does no harm a second time when the
// engine died over the first.
func again(ctx context.Context, c *client.Client, do func(context.Context) error) error {
	err := do(ctx)
	if !client.Broken(err) {
		return err
	}
	if err := c.Reconnect(ctx); err != nil {
		return err
	}
	return do(context.WithValue(ctx, secondKey{}, true))
}

func inParallel(n int, do func(i int)) {
	var group sync.WaitGroup
	turns := make(chan struct{}, parallel)
	for i := range n {
		group.Add(1)
		turns <- struct{}{}
		go func() {
			defer group.Done()
			do(i)
			<-turns
		}()
	}
	group.Wait()
}

func buildStart(a *app, cmd *cobra.Command) {
	var attach, interactive bool
	sigProxy := true
	var detachKeys string
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "show its output and pass signals on")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "attach standard input too")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "pass signals on to it")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "`KEYS` leave it running at these (ctrl-p,ctrl-q)")
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers("created", "exited", "paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !attach && !interactive {
			asked := time.Now()
			return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
				if isSecond(ctx) && startedSince(ctx, c, ref, asked) {
					return nil
				}
				return c.ContainerStart(ctx, ref, detachKeys)
			})
		}
		if len(args) > 1 {
			return wrong("only one container can be started and attached to at a time")
		}
		return a.startAttached(cmd, args[0], interactive, sigProxy, detachKeys)
	}
}

// startedSince reports whether a start whose answer was lost has happened. The
// container may have ended since, and must not run a second time.
func startedSince(ctx context.Context, c *client.Client, ref string, asked time.Time) bool {
	state, err := c.ContainerState(ctx, ref)
	if err != nil {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, state.State.StartedAt)
	return state.State.Status == "running" || err == nil && !at.Before(asked)
}

// startAttached starts a container and stays with it to its end.
func (a *app) startAttached(cmd *cobra.Command, ref string, interactive, sigProxy bool, detachKeys string) error {
	c, s, state, err := a.openSession(cmd, ref, interactive, detachKeys)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	condition := client.WaitNextExit
	if state.HostConfig.AutoRemove {
		condition = client.WaitRemoved
	}
	waiting, err := a.attachAndWait(ctx, c, s, state, condition, detachKeys)
	if err != nil {
		return err
	}
	if sigProxy && !s.tty {
		s.early = catchSignals()
	}
	if err := c.ContainerStart(ctx, state.ID, detachKeys); err != nil {
		return startFailure(err)
	}
	return a.stay(ctx, c, s, waiting, state)
}

// openSession prepares an attachment to an existing container.
func (a *app) openSession(cmd *cobra.Command, ref string, withInput bool, detachKeys string) (*client.Client, *session, client.ContainerState, error) {
	c, err := a.engine()
	if err != nil {
		return nil, nil, client.ContainerState{}, err
	}
	state, err := c.ContainerState(cmd.Context(), ref)
	if err != nil {
		return nil, nil, state, a.missingContainer(cmd, c, ref, err)
	}
	keys, err := terminal.ParseDetachKeys(detachKeys)
	if err != nil {
		return nil, nil, state, err
	}
	s := &session{app: a, tty: state.Config.Tty, out: a.out, err: a.err, detachKeys: keys, restore: func() {}}
	if withInput && state.Config.OpenStdin {
		s.in = a.in
		if s.tty && !terminal.Is(a.in) {
			return nil, nil, state, wrong("standard input is not a terminal, and %s has one", ref).
				WithHint("attach its output alone with --no-stdin")
		}
	}
	s.resize = func(rows, columns uint) { _ = c.ContainerResize(context.Background(), state.ID, rows, columns) }
	s.signal = func(name string) { _ = c.ContainerKill(context.Background(), state.ID, name) }
	return c, s, state, nil
}

func (a *app) attachAndWait(ctx context.Context, c *client.Client, s *session, state client.ContainerState, condition, detachKeys string) (*client.Waiting, error) {
	pending, err := c.BeginAttach(ctx, state.ID, client.AttachOptions{Stdin: s.in != nil, Stdout: true, Stderr: true, DetachKeys: detachKeys})
	if err != nil {
		return nil, err
	}
	waiting, err := c.BeginWait(ctx, state.ID, condition)
	if err == nil {
		s.stream, err = pending.Stream()
	}
	if err == nil {
		err = waiting.Registered()
	}
	return waiting, err
}

// stay shows the output to its end and returns the exit status.
func (a *app) stay(ctx context.Context, c *client.Client, s *session, waiting *client.Waiting, state client.ContainerState) error {
	defer s.dropSignals()
	condition := client.WaitNotRunning
	if state.HostConfig.AutoRemove {
		condition = client.WaitRemoved
	}
	ended := awaitEnd(ctx, c, waiting, state.ID, condition)
	err := s.copy()
	if errors.Is(err, terminal.ErrDetach) {
		a.sayDetached(state.ID, trimSlash(state.Name))
		return nil
	}
	if err != nil && !client.Broken(err) && !errors.Is(err, io.EOF) {
		a.complain(err)
	}
	return s.end(ctx, c, state.ID, ended).failure()
}

func trimSlash(name string) string {
	if len(name) > 0 && name[0] == '/' {
		return name[1:]
	}
	return name
}

func buildAttach(a *app, cmd *cobra.Command) {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "leave standard input alone")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "pass signals on to it")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "`KEYS` leave it running at these (ctrl-p,ctrl-q)")
	cmd.Args = exactly(1, "one container")
	cmd.ValidArgsFunction = a.completeContainers("running")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, s, state, err := a.openSession(cmd, args[0], !noStdin, detachKeys)
		if err != nil {
			return err
		}
		switch {
		case !state.State.Running:
			return wrong("%s is not running", args[0]).WithHint("start it with 'berth start -ai %s'", args[0])
		case state.State.Paused:
			return wrong("%s is paused", args[0])
		}
		waiting, err := a.attachAndWait(cmd.Context(), c, s, state, client.WaitNotRunning, detachKeys)
		if err != nil {
			return err
		}
		if sigProxy && !s.tty {
			s.early = catchSignals()
		}
		s.redraw = s.tty
		return a.stay(cmd.Context(), c, s, waiting, state)
	}
}
