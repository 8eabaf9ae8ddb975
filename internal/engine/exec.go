package engine

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/session"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/engine/why"
	"berth/internal/fault"
	"berth/internal/monitor"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecCreate prepares a command to run inside a running container.
func (e *Engine) ExecCreate(_ context.Context, ref string, req api.ExecCreateRequest) (string, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return "", err
	}
	if err := executable(c); err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", fault.New(fault.Invalid, "", "", "No exec command specified")
	}
	for _, env := range req.Env {
		if env == "" || strings.HasPrefix(env, "=") || strings.ContainsRune(env, 0) {
			return "", fault.New(fault.Invalid, "", "", "invalid environment variable: %q", env)
		}
	}
	if d := req.WorkingDir; d != "" && d[0] != '/' {
		return "", fault.New(fault.Invalid, "", "", "the working directory '%s' is invalid, it needs to be an absolute path", d)
	}
	if _, err := vocabulary.DetachKeys(req.DetachKeys); err != nil {
		return "", err
	}
	x := container.NewExec(newID(), c.ID, req)
	e.execs.Add(x)
	e.emit(c.Record(), events.Action("exec_create: "+strings.Join(req.Cmd, " ")), map[string]string{"execID": x.ID})
	return x.ID, nil
}

// executable refuses to run something in a container that can't.
func executable(c *container.Container) error {
	switch c.State().Status {
	case api.StateRunning:
		return nil
	case api.StatePaused:
		return fault.New(fault.Conflict, "", "", "container %s is paused, unpause the container before exec", c.ID)
	case api.StateRestarting:
		return fault.New(fault.Conflict, "", "", "container %s is restarting, wait until the container is running", c.ID)
	}
	return fault.New(fault.Conflict, "", "", "container %s is not running", c.ID)
}

// findExec returns an exec and its container.
func (e *Engine) findExec(id string) (*container.Exec, *container.Container, error) {
	x := e.execs.Get(id)
	if x == nil {
		return nil, nil, fault.New(fault.NotFound, "", "", "No such exec instance: %s", id)
	}
	c := e.containers.Get(x.ContainerID)
	if c == nil {
		return nil, nil, fault.New(fault.NotFound, "", "", "No such container: %s", x.ContainerID)
	}
	return x, c, nil
}

// ExecStart runs an exec. Without a connection it returns when the command runs.
// With one, the answer's header is written first, so what goes wrong from then on
// is said on the connection and in the exit code, and an error that is returned
// means that nothing was written.
func (e *Engine) ExecStart(ctx context.Context, id string, o ExecStartOptions, conn *os.File) error {
	x, c, err := e.findExec(id)
	if err != nil {
		return err
	}
	if err := executable(c); err != nil {
		return err
	}
	if !x.Claim() {
		return fault.New(fault.Conflict, "", "", "exec %s has already run", x.ID)
	}
	rec := c.Record()
	err = e.runExec(ctx, x, rec, o, conn)
	if err == nil {
		return nil
	}
	code, _ := why.ExecFailed(err)
	x.Ended(code)
	return err
}

// runExec starts the process, with the connection attached first so that nothing
// of its output is missed.
func (e *Engine) runExec(ctx context.Context, x *container.Exec, rec *container.Record, o ExecStartOptions, conn *os.File) error {
	ctx = context.WithoutCancel(ctx)
	attached := conn != nil && !o.Detach
	process, err := e.execProcess(x, rec, o)
	if err != nil && attached {
		// Of an answer that is no stream docker's command line shows the status alone.
		code, _ := why.ExecFailed(err)
		x.Ended(code)
		if _, werr := conn.Write(o.Header); werr != nil {
			return nil // the client went away
		}
		if o.Settle != nil {
			o.Settle()
		}
		session.Tell(conn, err, o.Tty)
		return nil
	}
	if err != nil {
		return err
	}
	if attached {
		if err := e.attachExec(ctx, x, rec, o, conn); err != nil {
			return err
		}
		if o.Settle != nil {
			o.Settle()
		}
	}
	e.emitExec(x, rec, events.Action("exec_start: "+strings.Join(x.Request.Cmd, " ")))
	started, err := e.monitor.Exec(ctx, monitor.ExecRequest{
		ContainerID: rec.ID, ExecID: x.ID, Process: process, OpenStdin: x.Request.AttachStdin && attached,
	})
	if err == nil {
		x.Began(started.PID)
		return nil
	}
	code, cause := why.ExecFailed(err)
	if over := ended(e.containers.Get(rec.ID)); over != nil && fault.KindOf(cause) == fault.Internal {
		cause = over
	}
	x.Ended(code)
	if !attached {
		return cause
	}
	session.Tell(conn, cause, o.Tty)
	return nil
}

func (e *Engine) emitExec(x *container.Exec, rec *container.Record, action events.Action) {
	if !x.Quiet {
		e.emit(rec, action, map[string]string{"execID": x.ID})
	}
}

// execProcess builds the process of an exec.
func (e *Engine) execProcess(x *container.Exec, rec *container.Record, o ExecStartOptions) (*specs.Process, error) {
	user, groups := x.Request.User, []string(nil)
	if user == "" {
		user, groups = rec.Config.User, rec.HostConfig.GroupAdd
	}
	id, err := e.identity(rec, user, groups)
	if err != nil {
		return nil, err
	}
	console := o.ConsoleSize
	if console == nil {
		console = x.Request.ConsoleSize
	}
	return spec.Exec(spec.ExecInput{
		Input:   spec.Input{Record: rec, Identity: id, Hostname: rec.Config.Hostname, Host: e.host, LastCap: e.lastCap, Links: e.nets.LinkVariables(rec)},
		Request: x.Request, Tty: x.Request.Tty, Console: console,
	})
}

func (e *Engine) attachExec(ctx context.Context, x *container.Exec, rec *container.Record, o ExecStartOptions, conn *os.File) error {
	keys, err := typedKeys(x.Request.DetachKeys, x.Request.Tty)
	if err != nil {
		return err
	}
	return session.HandOver(ctx, e.monitor, monitor.AttachRequest{
		ContainerID: rec.ID, ExecID: x.ID,
		Stdin: x.Request.AttachStdin, Stdout: x.Request.AttachStdout, Stderr: x.Request.AttachStderr,
		DetachKeys: keys, Prefix: o.Header,
	}, conn, o.Prefix)
}

// ended returns the conflict of a container whose process is over, though the
// news of it may still be on the way: nobody can enter its namespaces any more.
func ended(c *container.Container) error {
	if c == nil {
		return fault.New(fault.Conflict, "", "", "the container was removed")
	}
	if err := executable(c); err != nil {
		return err
	}
	if _, err := os.Readlink("/proc/" + strconv.Itoa(c.State().Pid) + "/ns/mnt"); err != nil {
		return fault.New(fault.Conflict, "", "", "container %s is not running", c.ID)
	}
	return nil
}

// ExecInspect tells about an exec.
func (e *Engine) ExecInspect(ctx context.Context, id string) (api.ExecInspectResponse, error) {
	x, _, err := e.findExec(id)
	if err != nil {
		return api.ExecInspectResponse{}, err
	}
	awaitEnd(ctx, x)
	pid, running, code := x.Status()
	r := x.Request
	keys := []byte{}
	if r.DetachKeys != "" {
		keys, _ = vocabulary.DetachKeys(r.DetachKeys)
	}
	out := api.ExecInspectResponse{
		ID: x.ID, ContainerID: x.ContainerID, Running: running, ExitCode: code, Pid: pid,
		OpenStdin: r.AttachStdin, OpenStdout: r.AttachStdout, OpenStderr: r.AttachStderr,
		DetachKeys:    keys,
		ProcessConfig: &api.ExecProcessConfig{Tty: r.Tty, Privileged: &r.Privileged, User: r.User},
	}
	if len(r.Cmd) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = r.Cmd[0], r.Cmd[1:]
	}
	return out, nil
}

// awaitEnd waits for word of the end of a process that is not there any more.
// Its client sees the end of the output first and asks at once for the exit
// code, which may still be on its way from the monitor, as may be the answer that
// it was started.
func awaitEnd(ctx context.Context, x *container.Exec) {
	begun := x.Begun()
	if begun == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, longestWord)
	defer cancel()
	select {
	case <-begun:
	case <-ctx.Done():
		return
	}
	pid, running, _ := x.Status()
	if !running || pid <= 0 || alive(pid) {
		return
	}
	select {
	case <-x.Done():
	case <-ctx.Done():
	}
}

// alive reports whether a process runs: it is there, and not only as a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	// The name before the state may hold anything, parentheses included.
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return ok && rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// longestWord bounds the wait for an exit code; a monitor that was killed needs
// some milliseconds to be there again.
const longestWord = 5 * time.Second

// ExecResize sets the size of an exec's terminal, in characters.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint16) error {
	x, _, err := e.findExec(id)
	if err != nil {
		return err
	}
	return e.monitor.Resize(ctx, x.ContainerID, x.ID, height, width)
}
