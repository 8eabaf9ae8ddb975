package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

const runExample = `  berth run --rm -it alpine                     a shell
  berth run -d --name web -p 8080:80 nginx      a server in the background
  berth run --rm -v .:/src -w /src golang go test ./...`

// runFlags are the flags of run and create.
type runFlags struct {
	spec.Flags
	detach   bool
	sigProxy bool
}

func buildRun(a *app, cmd *cobra.Command) {
	f := &runFlags{}
	f.Register(cmd.Flags())
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "leave it in the background and print its id")
	cmd.Flags().BoolVar(&f.sigProxy, "sig-proxy", true, "pass signals on to it")
	cmd.Flags().StringVar(&f.DetachKeys, "detach-keys", "", "`KEYS` leave it running at these (ctrl-p,ctrl-q)")
	cmd.Flags().SetInterspersed(false)
	cmd.Args = atLeast(1, "an image")
	cmd.ValidArgsFunction = a.completeImages(1)
	a.completeRunFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), f, args) }
}

func buildCreate(a *app, cmd *cobra.Command) {
	f := &runFlags{}
	f.Register(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	cmd.Args = atLeast(1, "an image")
	cmd.ValidArgsFunction = a.completeImages(1)
	a.completeRunFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := a.newRun(f, args)
		if err == nil {
			err = r.create(cmd.Context(), 0)
		}
		if err != nil {
			return refusedRun(err)
		}
		fmt.Fprintln(a.out, r.id)
		return nil
	}
}

// refusedRun gives errors before the start docker's exit code for them.
func refusedRun(err error) error {
	var e *exit
	if errors.As(err, &e) {
		return err
	}
	return &exit{codeEngine, err}
}

// run is one container from its creation to its end.
type run struct {
	app     *app
	client  *client.Client
	flags   *runFlags
	request *client.CreateRequest
	keys    []byte // detach keys
	id      string
}

func (a *app) newRun(f *runFlags, args []string) (*run, error) {
	request, err := f.Request(args[0], args[1:])
	if err != nil {
		return nil, err
	}
	if request.Config.Tty {
		request.HostConfig.ConsoleSize = a.consoleSize()
	}
	keys, err := terminal.ParseDetachKeys(f.DetachKeys)
	if err != nil {
		return nil, err
	}
	c, err := a.engine()
	if err != nil {
		return nil, err
	}
	return &run{app: a, client: c, flags: f, request: request, keys: keys}, nil
}

func (a *app) run(ctx context.Context, f *runFlags, args []string) error {
	r, err := a.newRun(f, args)
	if err != nil {
		return refusedRun(err)
	}
	config := r.request.Config
	switch {
	case f.detach && len(f.Attach) > 0:
		return refusedRun(wrong("--detach and --attach contradict each other"))
	case f.detach:
		config.AttachStdin, config.AttachStdout, config.AttachStderr, config.StdinOnce = false, false, false, false
	case config.Tty && config.AttachStdin && !terminal.Is(a.in):
		return &exit{codeFailed, wrong("standard input is not a terminal").
			WithHint("leave out -t to feed the container from a pipe or file")}
	}
	if f.detach {
		return r.detached(ctx)
	}
	return r.attached(ctx)
}

func (r *run) detached(ctx context.Context) error {
	if err := r.create(ctx, 0); err != nil {
		return refusedRun(err)
	}
	if err := r.start(ctx); err != nil {
		return r.notStarted(ctx, err)
	}
	fmt.Fprintln(r.app.out, r.id)
	return nil
}

// start starts the container; one whose engine dies meanwhile is looked at again.
func (r *run) start(ctx context.Context) error {
	err := r.client.ContainerStart(ctx, r.id, r.flags.DetachKeys)
	for tries := 0; client.Broken(err) && tries < reconnectTries; tries++ {
		if err = r.client.Reconnect(ctx); err != nil {
			return err
		}
		var state client.ContainerState
		state, err = r.client.ContainerState(ctx, r.id)
		if err == nil && state.State.Status == "created" {
			err = r.client.ContainerStart(ctx, r.id, r.flags.DetachKeys)
		}
	}
	return err
}

func (r *run) notStarted(ctx context.Context, err error) error {
	if r.flags.Remove {
		_ = r.client.ContainerRemove(ctx, r.id, client.RemoveOptions{Force: true, Volumes: true})
	}
	return startFailure(err)
}

// attached runs the container in the foreground. The streams and the wait are
// asked for together and before the start, so that neither output nor exit
// status can be missed and each costs no round trip of its own.
func (r *run) attached(ctx context.Context) error {
	config := r.request.Config
	connections := 1
	if config.AttachStdin || config.AttachStdout || config.AttachStderr {
		connections++
	}
	if err := r.create(ctx, connections); err != nil {
		return refusedRun(err)
	}
	s := r.session()
	waiting, err := r.openStreams(ctx, s)
	if err != nil {
		return startFailure(r.discard(ctx, err))
	}
	err = r.client.ContainerStart(ctx, r.id, r.flags.DetachKeys)
	if client.Broken(err) {
		waiting, err = r.resume(ctx, s)
	}
	if err != nil {
		return r.notStarted(ctx, err)
	}
	return r.follow(ctx, s, waiting)
}

// follow shows the output to its end and then returns the exit status.
func (r *run) follow(ctx context.Context, s *session, waiting *client.Waiting) error {
	defer s.dropSignals()
	ended := awaitEnd(ctx, r.client, waiting, r.id, r.condition())
	if s.stream != nil || s.logs != nil {
		err := s.copy()
		if errors.Is(err, terminal.ErrDetach) {
			r.app.sayDetached(r.id, r.flags.Name)
			return nil
		}
		if err != nil && !client.Broken(err) {
			r.app.complain(err)
		}
	} else if s.early != nil {
		go s.passSignals()
	}
	return s.end(ctx, r.client, r.id, ended).failure()
}

// condition is the end that the prompt waits for.
func (r *run) condition() string {
	if r.flags.Remove {
		return client.WaitRemoved
	}
	return client.WaitNextExit
}

func (a *app) sayDetached(id, name string) {
	if name == "" {
		name = id[:min(12, len(id))]
	}
	fmt.Fprintf(a.err, "\r\nberth: %s goes on in the background; 'berth attach %s' brings it back\n", name, name)
}

func (r *run) session() *session {
	config := r.request.Config
	s := &session{app: r.app, tty: config.Tty, out: io.Discard, err: io.Discard, detachKeys: r.keys, restore: func() {}, fresh: true}
	if config.AttachStdin {
		s.in = r.app.in
	}
	if config.AttachStdout {
		s.out = r.app.out
	}
	if config.AttachStderr {
		s.err = r.app.err
	}
	if config.Tty {
		s.resize = func(rows, columns uint) {
			_ = r.client.ContainerResize(context.Background(), r.id, rows, columns)
		}
	}
	return s
}

// openStreams asks for the streams and the exit status in one go, and begins to hold
// the signals for the container.
func (r *run) openStreams(ctx context.Context, s *session) (*client.Waiting, error) {
	config := r.request.Config
	var pending *client.Pending
	if config.AttachStdin || config.AttachStdout || config.AttachStderr {
		var err error
		pending, err = r.client.BeginAttach(ctx, r.id, client.AttachOptions{Stdin: config.AttachStdin,
			Stdout: config.AttachStdout, Stderr: config.AttachStderr, DetachKeys: r.flags.DetachKeys})
		if err != nil {
			return nil, err
		}
	}
	waiting, err := r.client.BeginWait(ctx, r.id, r.condition())
	if r.flags.sigProxy && !config.Tty && s.early == nil {
		s.early = catchSignals() // while the engine works on its answers
		s.signal = func(name string) { _ = r.client.ContainerKill(context.Background(), r.id, name) }
	}
	if err == nil && pending != nil {
		s.stream, err = pending.Stream()
	}
	if err == nil {
		err = waiting.Registered()
	}
	return waiting, err
}

// resume takes up a run whose engine died while it was starting the container.
func (r *run) resume(ctx context.Context, s *session) (*client.Waiting, error) {
	if s.stream != nil {
		_ = s.stream.Close()
		s.stream = nil
	}
	if err := r.client.Reconnect(ctx); err != nil {
		return nil, err
	}
	state, err := r.client.ContainerState(ctx, r.id)
	if err != nil {
		return nil, err
	}
	if state.State.Status == "created" {
		waiting, err := r.openStreams(ctx, s)
		if err == nil {
			err = r.client.ContainerStart(ctx, r.id, r.flags.DetachKeys)
		}
		return waiting, err
	}
	if s.in != nil && state.State.Running {
		pending, err := r.client.BeginAttach(ctx, r.id, client.AttachOptions{Logs: true, Stdin: true,
			Stdout: r.request.Config.AttachStdout, Stderr: r.request.Config.AttachStderr, DetachKeys: r.flags.DetachKeys})
		if err != nil {
			return nil, err
		}
		if s.stream, err = pending.Stream(); err != nil {
			return nil, err
		}
	} else { // the log has all of the output and ends with the container
		s.logs = func() error {
			return r.client.ContainerLogs(ctx, r.id, client.LogsOptions{Follow: true}, s.out, s.err)
		}
	}
	return r.client.BeginWait(ctx, r.id, client.WaitNotRunning)
}

// discard removes a container that never ran and returns why.
func (r *run) discard(ctx context.Context, err error) error {
	if r.flags.Remove {
		_ = r.client.ContainerRemove(ctx, r.id, client.RemoveOptions{Force: true, Volumes: true})
	}
	return err
}

// create makes the container, pulling its image when that is wanted. warm
// further connections are opened while the engine works.
func (r *run) create(ctx context.Context, warm int) error {
	cid, err := r.claimCIDFile()
	if err != nil {
		return err
	}
	f := r.flags
	if f.OnUnhealthy != "" { // others would take it for a note
		ours, err := r.client.IsBerth(ctx)
		if err == nil && !ours {
			err = wrong("this engine has no --on-unhealthy").WithHint("nothing was created")
		}
		if err != nil {
			cid.drop()
			return err
		}
	}
	if f.Pull == spec.PullAlways {
		if err := r.app.pullFor(ctx, r.client, f, r.request.Image); err != nil {
			return err
		}
	}
	made, err := r.createAgain(ctx, warm)
	if f.Pull == spec.PullMissing && imageMissing(err) {
		if !f.Quiet {
			fmt.Fprintf(r.app.err, "Unable to find image '%s' locally\n", withTag(r.request.Image))
		}
		if err := r.app.pullFor(ctx, r.client, f, r.request.Image); err != nil {
			cid.drop()
			return err
		}
		made, err = r.createAgain(ctx, warm)
	}
	if err != nil {
		cid.drop()
		return err
	}
	r.id = made.ID
	for _, warning := range made.Warnings {
		fmt.Fprintln(r.app.err, "WARNING:", warning)
	}
	return cid.write(r.id)
}

// createAgain makes the container, a second time when the engine died over the
// first. The name, when there is one, tells whether the first was made.
func (r *run) createAgain(ctx context.Context, warm int) (client.CreateResponse, error) {
	made, err := r.createOnce(ctx, warm)
	if !client.Broken(err) {
		return made, err
	}
	if err := r.client.Reconnect(ctx); err != nil {
		return made, err
	}
	if name := r.flags.Name; name != "" {
		if state, err := r.client.ContainerState(ctx, name); err == nil && state.State.Status == "created" {
			return client.CreateResponse{ID: state.ID}, nil
		}
	}
	return r.createOnce(ctx, warm)
}

func (r *run) createOnce(ctx context.Context, warm int) (client.CreateResponse, error) {
	pending, err := r.client.BeginContainerCreate(ctx, r.flags.Name, r.flags.Platform, r.request)
	if err != nil {
		return client.CreateResponse{}, err
	}
	if warm > 0 {
		r.client.Warm(ctx, warm)
	}
	return pending.Finish()
}

// imageMissing reports whether a creation failed for want of its image.
func imageMissing(err error) bool {
	var refusal *client.Refusal
	return errors.As(err, &refusal) && refusal.Status == 404 && contains(refusal.Message, "no such image", "image not known")
}

func contains(text string, parts ...string) bool {
	text = strings.ToLower(text)
	for _, part := range parts {
		if strings.Contains(text, strings.ToLower(part)) {
			return true
		}
	}
	return false
}

// cidFile is the file of --cidfile; nil when there is none.
type cidFile struct{ file *os.File }

func (r *run) claimCIDFile() (*cidFile, error) {
	if r.flags.CIDFile == "" {
		return nil, nil
	}
	file, err := os.OpenFile(r.flags.CIDFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, wrong("--cidfile: %s exists already", r.flags.CIDFile).
			WithHint("remove it if its container is gone, or name another file")
	}
	if err != nil {
		return nil, fmt.Errorf("--cidfile: %w", err)
	}
	return &cidFile{file}, nil
}

func (c *cidFile) write(id string) error {
	if c == nil {
		return nil
	}
	_, err := c.file.WriteString(id)
	if closed := c.file.Close(); err == nil {
		err = closed
	}
	return err
}

func (c *cidFile) drop() {
	if c != nil {
		_ = c.file.Close()
		_ = os.Remove(c.file.Name())
	}
}
