package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// keygen makes a key and returns its file, and the line that an agent lists it
// with, without the comment.
func (h *host) keygen(name, passphrase string) (file, public string) {
	h.t.Helper()
	file = h.path(name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", file).CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	fields := strings.Fields(readFile(h.t, file+".pub"))
	return file, fields[0] + " " + fields[1]
}

// agentClient puts the programs of ssh into a context, with what they need to run.
func (h *host) agentClient(dir string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "root/usr/bin"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	copyFile(h.t, "/usr/bin/ssh-add", filepath.Join(dir, "root/usr/bin/ssh-add"))
	out, err := exec.Command("ldd", "/usr/bin/ssh-add").CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if !filepath.IsAbs(field) {
			continue
		}
		to := filepath.Join(dir, "root", field)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			h.t.Fatal(err)
		}
		copyFile(h.t, field, to)
	}
}

// The agent that a step sees is the client's, wherever the engine is, and holds
// the keys of files that the client names.
func TestBuildAgents(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	dir := h.context("app", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nCOPY root /\n" +
		"ARG N\nRUN --mount=type=ssh ssh-add -L\n" +
		"USER user\nRUN --mount=type=ssh,id=other,uid=1000,required ls -ln $SSH_AUTH_SOCK; ssh-add -L\n"})
	h.agentClient(dir)
	first, firstLine := h.keygen("first", "")
	second, secondLine := h.keygen("second", "")
	locked, _ := h.keygen("locked", "secret")
	if err := os.Chmod(second, 0o644); err != nil { // as files of build machines are
		t.Fatal(err)
	}
	socket := h.path("agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := agent.StdoutPipe()
	if err == nil {
		err = agent.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	add := exec.Command("ssh-add", "-q", first)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for where, command := range map[string]func(args ...string) *exec.Cmd{
		"here":      func(args ...string) *exec.Cmd { return h.within(append([]string{h.berthBin}, args...)...) },
		"elsewhere": func(args ...string) *exec.Cmd { return w.command("home", args...) },
	} {
		cmd := command("build", "--progress", "plain", "--build-arg", "N="+where, "--ssh", "default", "--ssh", "other="+second+","+first, dir)
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket, "TMPDIR="+h.path("home", "tmp"))
		if err := os.MkdirAll(h.path("home", "tmp"), 0o700); err != nil {
			t.Fatal(err)
		}
		o := execute(t, cmd)
		if o.code != 0 {
			t.Fatalf("%s: %s", where, o.stderr)
		}
		before, after, _ := strings.Cut(o.stderr, "USER user")
		if before == o.stderr {
			before, after, _ = strings.Cut(o.stderr, "id=other")
		}
		contains(t, before, firstLine)
		contains(t, after, firstLine, secondLine, "srw-------    1 1000     0")
		if left, err := os.ReadDir(h.path("home", "tmp")); err != nil || len(left) > 0 {
			t.Errorf("%s: %v was left, %v", where, left, err)
		}
		for _, c := range []struct{ flag, want string }{
			{"default=" + locked, "passphrase"}, {"default=" + first + ".pub", "private key"}, {"default=" + socket + "," + first, "either one socket or keys"},
			{"default=" + h.path("nothing"), "no such file"}, {"default=" + h.dir, "neither"},
		} {
			cmd := exec.Command("setsid", append([]string{"-w"}, command("build", "--ssh", c.flag, dir).Args...)...) // without a terminal
			cmd.Env = command().Env
			if o := execute(t, cmd); o.code == 0 || !strings.Contains(o.stderr, c.want) {
				t.Errorf("%s: --ssh %s: code %d, %s", where, c.flag, o.code, o.stderr)
			}
		}
	}
}

// A client that is killed leaves neither the agent that had the keys nor a name for it.
func TestBuildAgentsOfAKilledClient(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("app", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nCOPY root /\nRUN --mount=type=ssh ssh-add -L; sleep 1000\n"})
	h.agentClient(dir)
	key, line := h.keygen("key", "")
	tmp := h.path("tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := h.within("env", "TMPDIR="+tmp, h.berthBin, "--no-start", "build", "--progress", "plain", "--ssh", "default="+key, dir)
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h.eventually("the step has the key", func() bool { return strings.Contains(out.String(), line) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	h.eventually("its directory is gone", func() bool {
		left, err := os.ReadDir(tmp)
		return err == nil && len(left) == 0
	})
	h.eventually("the agent has ended", func() bool {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "ssh-agent") && strings.Contains(string(text), tmp) {
				return false
			}
		}
		return true
	})
	h.nothingLeft()
}
