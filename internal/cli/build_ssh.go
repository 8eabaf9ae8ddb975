package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"berth/internal/fault"
	"berth/internal/wire"
)

// agents are the ssh agents of --ssh. They answer here, wherever the engine is: it
// asks for each connection.
type agents struct {
	sockets map[string]string // by id
	own     []ownAgent        // for keys in files
}

// ownAgent is an agent that is there as long as lifeline is open: this program holds it
// and whatever ends it closes it.
type ownAgent struct {
	keeper   *exec.Cmd
	lifeline io.Closer
}

// keepAgent runs an agent in the directory $0 until nobody holds its standard input any
// more, and leaves nothing of it. The kernel's signal at a parent's death does not reach
// ssh-agent where that is a set-group-id program (prctl(2), PR_SET_PDEATHSIG).
const keepAgent = `ssh-agent -D -a "$0/agent" & exec >/dev/null 2>&1; read -r _; kill $!; wait $!; rm -rf "$0"`

// maxKey bounds a file with a key.
const maxKey = 1 << 20

// openAgents reads --ssh: default, or NAME=SOCKET, or NAME=KEYFILE[,KEYFILE].
func openAgents(list []string) (*agents, error) {
	a := &agents{sockets: map[string]string{}}
	for _, text := range list {
		id, path, ok := strings.Cut(text, "=")
		if _, twice := a.sockets[id]; twice {
			a.close()
			return nil, wrong("--ssh %s is given twice", id)
		}
		if !ok || path == "" {
			if path = os.Getenv("SSH_AUTH_SOCK"); path == "" {
				a.close()
				return nil, wrong("--ssh %q: no agent runs", text).WithHint("SSH_AUTH_SOCK is not set: start one with eval $(ssh-agent), or name a key, %s=FILE", text)
			}
		}
		if err := a.add(id, path); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

func (a *agents) add(id, paths string) error {
	var keys [][]byte
	for path := range strings.SplitSeq(paths, ",") {
		path = expandHome(path)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode()&os.ModeSocket != 0 {
			if len(keys) > 0 || a.sockets[id] != "" {
				return wrong("--ssh %s: give either one socket or keys", id)
			}
			a.sockets[id] = path
			continue
		}
		if a.sockets[id] != "" {
			return wrong("--ssh %s: give either one socket or keys", id)
		}
		if !info.Mode().IsRegular() || info.Size() > maxKey {
			return wrong("--ssh %s: %s is neither an agent's socket nor a key", id, path)
		}
		key, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil
	}
	socket, err := a.start()
	if err != nil {
		return err
	}
	a.sockets[id] = socket
	for i, key := range keys {
		if err := addKey(socket, key); err != nil {
			return wrong("--ssh %s: the key %s cannot be used: %w", id, strings.Split(paths, ",")[i], err).
				WithHint("it must be a private key; one with a passphrase needs a terminal to ask for it, or an agent that has the key")
		}
	}
	return nil
}

// start starts an agent that ends with this program, and returns its socket.
func (a *agents) start() (string, error) {
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		return "", fault.New(fault.Unsupported, "start", "ssh-agent", "%w", err).
			WithHint("keys in files need OpenSSH's programs on this machine")
	}
	dir, err := os.MkdirTemp("", "berth-ssh-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/bin/sh", "-c", keepAgent, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal kills ends before it
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = os.Remove(dir)
		return "", err
	}
	a.own = append(a.own, ownAgent{cmd, lifeline})
	// It says where it listens once it does.
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", fault.New(fault.Unavailable, "start", "ssh-agent", "it ended early: %s%w", line, err)
	}
	return filepath.Join(dir, "agent"), nil
}

// addKey gives an agent a key. It is not named by its file: OpenSSH refuses files
// that others may read, although their keys work.
func addKey(socket string, key []byte) error {
	cmd := exec.Command("ssh-add", "-q", "-")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket, "SSH_ASKPASS_REQUIRE=never")
	cmd.Stdin = bytes.NewReader(key)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	if text := strings.TrimSpace(errs.String()); err != nil && text != "" {
		return errors.New(strings.ReplaceAll(text, "(stdin)", "it"))
	}
	return err
}

// ids returns the names of the agents, for a request.
func (a *agents) ids() []string {
	var out []string
	for id := range a.sockets {
		out = append(out, id)
	}
	return out
}

func (a *agents) close() {
	for _, own := range a.own {
		_ = own.lifeline.Close()
		_ = own.keeper.Wait()
	}
}

// connect gives the engine the connection to an agent that it asks for.
func (b *building) connect(ctx context.Context, e *wire.BuildEvent) {
	socket, ok := b.agents.sockets[e.Name]
	if !ok {
		return
	}
	stream, err := b.client.BuildAgent(ctx, e.Shell)
	if err != nil {
		return // the program that wants the agent says that it has none
	}
	defer stream.Close()
	agent, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer agent.Close()
	ended := make(chan struct{}, 2)
	pump := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from)
		ended <- struct{}{}
	}
	go pump(agent, stream)
	go pump(stream, agent)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
