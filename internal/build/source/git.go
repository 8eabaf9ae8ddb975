package source

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"berth/internal/build/gitref"
	"berth/internal/build/tree"
	"berth/internal/fault"
)

// Git runs git for one repository. It takes nothing of the machine's own
// configuration and runs no hooks.
type Git struct {
	Remote string
	// AgentSocket is an ssh agent for addresses over ssh; "" is none.
	AgentSocket string
}

// protocols that git may use, for submodules too: never files of this machine,
// and no helper programs.
const protocols = "http:https:ssh:git"

func (g *Git) run(ctx context.Context, dir string, args ...string) (string, error) {
	full := append([]string{
		"-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=never", "-c", "protocol.ext.allow=never",
		"-c", "credential.helper=", "-c", "advice.detachedHead=false", "-c", "core.fsmonitor=false", "-c", "safe.directory=*",
		"-c", "init.defaultBranch=main", "-c", "gc.auto=0",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", full...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=" + protocols, "GIT_ASKPASS=/bin/false", "LC_ALL=C", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -F /dev/null",
	}
	if g.AgentSocket != "" {
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+g.AgentSocket)
	}
	// Its helpers end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", g.failed(ctx, err, errs.String())
	}
	return out.String(), nil
}

func (g *Git) failed(ctx context.Context, err error, text string) error {
	switch {
	case ctx.Err() != nil:
		return fault.New(fault.Canceled, "fetch repository", g.Remote, "%w", ctx.Err())
	case errors.Is(err, exec.ErrNotFound):
		return fault.New(fault.Unsupported, "fetch repository", g.Remote, "git is not installed on the engine's machine").
			WithHint("install git there, or clone the repository and build from the directory")
	}
	text = strings.TrimSpace(text)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fault.New(fault.Unavailable, "fetch repository", g.Remote, "%w: %s", err, text).
		WithHint("check the address and that this machine may read it")
}

// Resolve returns the commit that ref means; "" is the default branch. A full
// commit is taken as it is.
func (g *Git) Resolve(ctx context.Context, ref string) (string, error) {
	if isCommit(ref) {
		return ref, nil
	}
	want := ref
	if want == "" {
		want = "HEAD"
	}
	out, err := g.run(ctx, "/", "ls-remote", "--", g.Remote, want, want+"^{}")
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if sha, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && isCommit(sha) {
			found[name] = sha
		}
	}
	// An annotated tag's own line names the tag; the one with ^{} its commit.
	for _, name := range []string{"refs/heads/" + want, "refs/tags/" + want + "^{}", "refs/tags/" + want, want + "^{}", want} {
		if sha := found[name]; sha != "" {
			return sha, nil
		}
	}
	return "", fault.New(fault.NotFound, "find in repository "+g.Remote, want, "no such branch, tag or commit")
}

func isCommit(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// Checkout puts a commit's files into the empty directory dir.
func (g *Git) Checkout(ctx context.Context, dir, ref, commit string, keepDir, submodules bool) error {
	if _, err := g.run(ctx, dir, "init", "-q", "."); err != nil {
		return err
	}
	if _, err := g.run(ctx, dir, "remote", "add", "--", "origin", g.Remote); err != nil {
		return err
	}
	if _, err := g.run(ctx, dir, "fetch", "-q", "--depth=1", "--no-tags", "--", "origin", commit); err != nil {
		// A server that hands out no single commits: everything that has a name.
		if _, err = g.run(ctx, dir, "fetch", "-q", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"); err != nil {
			return err
		}
	}
	if _, err := g.run(ctx, dir, "checkout", "-q", "--force", "--detach", commit, "--"); err != nil {
		return err
	}
	if submodules {
		if _, err := os.Lstat(filepath.Join(dir, ".gitmodules")); err == nil {
			if _, err := g.run(ctx, dir, "submodule", "-q", "update", "--init", "--recursive", "--depth=1"); err != nil {
				return err
			}
		}
	}
	if !keepDir {
		return removeGit(dir)
	}
	return nil
}

// removeGit removes git's own files, those of submodules too.
func removeGit(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == ".git" && p != dir {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
			if e.IsDir() {
				return filepath.SkipDir
			}
		}
		return nil
	})
}

// CheckCommit reports whether a commit is the one that a checksum names.
func CheckCommit(remote, commit, checksum string) error {
	if strings.HasPrefix(commit, checksum) {
		return nil
	}
	return fault.New(fault.Invalid, "verify repository", remote, "its commit is %s, wanted is %s", commit, checksum)
}

// Repository makes a context of a repository.
func (s *Store) Repository(ctx context.Context, ref gitref.Ref, agent, dockerfile string) (*Context, error) {
	g := &Git{Remote: ref.Remote, AgentSocket: agent}
	commit, err := g.Resolve(ctx, ref.Ref)
	if err != nil {
		return nil, err
	}
	if err := CheckCommit(ref.Remote, commit, ref.Checksum); err != nil {
		return nil, err
	}
	dir, remove, err := s.temp()
	if err != nil {
		return nil, fault.Wrap("fetch repository", ref.Remote, err)
	}
	c := &Context{dir: dir, remove: remove}
	err = g.Checkout(ctx, dir, ref.Ref, commit, ref.KeepDir != nil && *ref.KeepDir, ref.Submodules == nil || *ref.Submodules)
	if err == nil && ref.Subdir != "" {
		c, err = c.below(ref.Subdir, dockerfile)
	} else if err == nil {
		err = c.open(tree.Options{Flat: true}, dockerfile)
	}
	if err != nil {
		remove()
		return nil, err
	}
	c.Commit = commit
	return c, nil
}

// below opens a directory of a checkout, whose links do not lead out of it.
func (c *Context) below(dir, dockerfile string) (*Context, error) {
	if err := c.open(tree.Options{Flat: true}, ""); err != nil {
		return nil, err
	}
	sub, err := c.Sub(dir, dockerfile)
	if err != nil {
		c.Dir.Close()
		return nil, fault.New(fault.NotFound, "open build context", dir, "the repository has no such directory")
	}
	return sub, nil
}
