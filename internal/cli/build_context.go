package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/internal/cli/archive"
	"berth/internal/cli/buildview"
	"berth/internal/cli/sending"
	"berth/internal/cli/terminal"
	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/wire"
)

// buildContext is where the files of a build come from.
type buildContext struct {
	dir        string         // "" unless they are in a directory here
	dockerfile string         // path in dir, "" if it is elsewhere
	text       []byte         // the Dockerfile, when it is known here
	file       string         // what it is called in messages
	stdin      io.Reader      // an archive
	spool      *os.File       // what was read of it, when it is sent more than once
	pipe       *io.PipeReader // of an archive that is being made
	// sent are directories that the engine cannot read, by the names of contexts.
	sent map[string]string
}

// maxDockerfile bounds a Dockerfile.
const maxDockerfile = 16 << 20

// openContext finds out what source means, and puts it into rq.
func (a *app) openContext(f *buildFlags, source string, rq *wire.BuildRequest, c *client.Client) (*buildContext, error) {
	b := &buildContext{file: f.file}
	local := c.Endpoint().Scheme == "unix"
	if err := namedContexts(f.contexts, rq, local); err != nil {
		return nil, err
	}
	if f.file == "-" {
		text, err := io.ReadAll(io.LimitReader(a.in, maxDockerfile))
		if err != nil {
			return nil, err
		}
		if source == "-" {
			return nil, wrong("the Dockerfile and the build context cannot both come from standard input")
		}
		b.text, b.file, rq.Text = text, "Dockerfile", text
	}
	if source == "-" {
		if err := a.contextFromInput(f, b, rq); err != nil {
			return nil, err
		}
		if b.stdin != nil && (len(f.outputs) > 1 || len(rq.Seen) > 0) {
			return b, b.keepInput()
		}
		return b, nil
	}
	info, err := os.Stat(source)
	switch remote, isRemote := remoteContext(source); {
	case err != nil && isRemote:
		rq.Remote = remote
		if f.file != "-" {
			rq.Dockerfile = f.file
		}
		return b, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, wrong("%s is not a directory", source).WithHint("name the directory that the Dockerfile copies from; -f names the Dockerfile")
	}
	if b.dir, err = filepath.Abs(source); err != nil {
		return nil, err
	}
	if b.dir, err = filepath.EvalSymlinks(b.dir); err != nil {
		return nil, err
	}
	if f.file != "-" {
		if err := b.findDockerfile(f.file, rq); err != nil {
			return nil, err
		}
	}
	rq.ContextDir = b.dir
	if !local {
		b.sendInstead(rq)
		return b, nil
	}
	return b, see(rq, b.dir)
}

// remoteContext reports whether an argument is the address of a repository or an
// archive, as docker reads them.
func remoteContext(s string) (string, bool) {
	for _, scheme := range []string{"http://", "https://", "git://", "ssh://"} {
		if strings.HasPrefix(s, scheme) {
			return s, true
		}
	}
	if rest, ok := strings.CutPrefix(s, "github.com/"); ok {
		path, fragment, has := strings.Cut(rest, "#")
		if !strings.HasSuffix(path, ".git") {
			path += ".git"
		}
		if has {
			path += "#" + fragment
		}
		return "https://github.com/" + path, true
	}
	user, rest, at := strings.Cut(s, "@")
	return s, at && !strings.ContainsAny(user, "/:") && strings.Contains(rest, ":")
}

// contextFromInput reads a Dockerfile or an archive from standard input.
func (a *app) contextFromInput(f *buildFlags, b *buildContext, rq *wire.BuildRequest) error {
	if terminal.Is(a.in) {
		return wrong("build - reads an archive or a Dockerfile from standard input, which is a terminal")
	}
	in := bufio.NewReader(onlyReader{a.in})
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if isArchive(head) {
		b.stdin, rq.Archive, rq.Dockerfile = in, true, f.file
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDockerfile))
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return wrong("standard input is empty: there is no Dockerfile in it")
	}
	b.text, b.file, rq.Text = text, "Dockerfile", text
	return nil
}

// keepInput puts standard input into a file without a name, from which it can be
// sent again.
func (b *buildContext) keepInput() error {
	f, err := os.CreateTemp("", "berth-context-")
	if err != nil {
		return err
	}
	_ = os.Remove(f.Name())
	b.spool = f
	_, err = io.Copy(f, b.stdin)
	return err
}

// isArchive reports whether the beginning of a file is that of a tar archive,
// plain or compressed.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	if len(head) < 512 {
		return false
	}
	return bytes.HasPrefix(head[257:], []byte("ustar")) || bytes.IndexByte(head[:100], 0) > 0
}

// findDockerfile finds the Dockerfile and reads it, for the excerpts of warnings.
// One outside of the directory is sent, and so is one behind a link.
func (b *buildContext) findDockerfile(given string, rq *wire.BuildRequest) error {
	path := given
	if path == "" {
		path = filepath.Join(b.dir, "Dockerfile")
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			path = b.otherName(path)
		}
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && given != "" && !filepath.IsAbs(given) { // people name it from either place
		if inside, again := os.ReadFile(filepath.Join(b.dir, given)); again == nil {
			path, text, err = filepath.Join(b.dir, given), inside, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) && given == "" {
		return fault.New(fault.Invalid, "", "", "there is no Dockerfile in %s", b.dir).WithHint("name it with -f FILE")
	}
	if err != nil {
		return err
	}
	if len(text) > maxDockerfile {
		return wrong("%s is no Dockerfile: it has more than %d bytes", path, maxDockerfile)
	}
	b.text, b.file = text, path
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(b.dir, real)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		rq.Text = text
		return nil
	}
	b.dockerfile, rq.Dockerfile = rel, filepath.ToSlash(rel)
	return nil
}

// otherName returns the other name that a Dockerfile may have.
func (b *buildContext) otherName(path string) string {
	for _, name := range []string{"dockerfile", "Containerfile"} {
		if _, err := os.Lstat(filepath.Join(b.dir, name)); err == nil {
			return filepath.Join(b.dir, name)
		}
	}
	return path
}

// see notes in rq what directory path is.
func see(rq *wire.BuildRequest, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if rq.Seen == nil {
		rq.Seen = map[string]string{}
	}
	rq.Seen[path] = wire.FileID(st.Dev, st.Ino)
	return nil
}

// namedContexts reads --build-context.
func namedContexts(list []string, rq *wire.BuildRequest, local bool) error {
	for _, text := range list {
		name, where, ok := strings.Cut(text, "=")
		if !ok || name == "" || where == "" {
			return wrong("--build-context %q is not NAME=WHERE", text)
		}
		if rq.Contexts == nil {
			rq.Contexts = map[string]string{}
		}
		if remote, is := remoteContext(where); is || strings.HasPrefix(where, "docker-image://") {
			rq.Contexts[name] = remote
			continue
		}
		layout, isLayout := strings.CutPrefix(where, layoutScheme)
		if !isLayout && strings.Contains(where, "://") || strings.HasPrefix(where, "target:") {
			return fault.New(fault.Unsupported, "", "", "--build-context %q is not offered by berth", text).
				WithHint("give a directory, docker-image://NAME, oci-layout://DIR, or the address of a repository or an archive; a stage is named in the Dockerfile itself")
		}
		value, dir := "", where
		if isLayout {
			var err error
			if dir, value, err = layoutImage(layout); err != nil {
				return wrong("--build-context %q: %w", text, err)
			}
		}
		dir, err := realDirectory(dir)
		if err != nil {
			return wrong("--build-context %q: %w", text, err)
		}
		if rq.Contexts[name] = dir; isLayout {
			rq.Contexts[name] = layoutScheme + dir + value
		}
		if !local {
			continue
		}
		if err := see(rq, dir); err != nil {
			return err
		}
	}
	return nil
}

// layoutScheme begins a named context that is an image in an OCI layout.
const layoutScheme = "oci-layout://"

// layoutImage reads DIR[:TAG][@DIGEST]. What it returns besides the directory names
// the image by its digest.
func layoutImage(text string) (dir, image string, err error) {
	dir, digest, given := strings.Cut(text, "@")
	tag := ""
	if cut := strings.LastIndexByte(dir, ':'); cut > strings.LastIndexByte(dir, '/') {
		dir, tag = dir[:cut], dir[cut+1:]
	}
	if !given {
		d, err := openCacheDir(dir)
		if err != nil {
			return "", "", err
		}
		defer d.close()
		x, err := d.index()
		if err != nil {
			return "", "", err
		}
		if digest = x.tagged(tag); digest == "" {
			return "", "", fmt.Errorf("there is no image %q in it", orLatest(tag))
		}
	}
	_, err = blobPath(digest)
	return dir, "@" + digest, err
}

// realDirectory returns the path of a directory without links.
func realDirectory(path string) (string, error) {
	dir, err := filepath.Abs(path)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", path)
	}
	return dir, nil
}

// mainContext is the name of the main context among those that have one.
const mainContext = "context"

// sendInstead makes rq one whose directories are sent.
func (b *buildContext) sendInstead(rq *wire.BuildRequest) {
	b.sent = map[string]string{}
	if rq.ContextDir != "" {
		b.sent[mainContext] = rq.ContextDir
		rq.ContextDir, rq.ContextName = "", filepath.Base(rq.ContextDir)
	}
	for name, where := range rq.Contexts {
		if filepath.IsAbs(where) {
			b.sent[name] = where
			delete(rq.Contexts, name)
		} else if layout, ok := strings.CutPrefix(where, layoutScheme); ok {
			cut := strings.LastIndexByte(layout, '@')
			b.sent[name], rq.Contexts[name] = layout[:cut], layoutScheme+layout[cut:]
		}
	}
	rq.Seen = nil
}

// body returns what is sent after rq, nil when there is nothing. view hears how
// much of it has been sent.
func (b *buildContext) body(ctx context.Context, c *client.Client, rq *wire.BuildRequest, view buildview.View) (io.Reader, error) {
	var parts []io.Reader
	rq.Sent = nil
	for _, name := range slices.Sorted(maps.Keys(b.sent)) {
		dockerfile := ""
		if name == mainContext {
			dockerfile = b.dockerfile
		}
		d, err := sending.Begin(ctx, c, b.sent[name], dockerfile)
		if err != nil && isMissing(err) && name == mainContext {
			rq.Archive = true // an engine that knows nothing else
			continue
		}
		if err != nil && isMissing(err) {
			return nil, fault.New(fault.Unsupported, "", "", "the engine at %s cannot be sent the directory of --build-context %s", c.Endpoint(), name).
				WithHint("it is older than this program")
		}
		if err != nil {
			return nil, err
		}
		if rq.Sent == nil {
			rq.Sent = map[string]string{}
		}
		rq.Sent[name] = d.ID
		parts = append(parts, d.Reader())
	}
	switch {
	case b.spool != nil:
		if _, err := b.spool.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		parts = append(parts, b.spool)
	case b.stdin != nil:
		parts = append(parts, b.stdin)
	case rq.Archive:
		r, w := io.Pipe()
		b.pipe = r
		go func() { _ = w.CloseWithError(archive.PackContext(w, b.dir, b.dockerfile)) }()
		parts = append(parts, r)
	}
	if parts == nil {
		return nil, nil
	}
	return &sentReader{r: io.MultiReader(parts...), view: view}, nil
}

// close ends whoever makes an archive.
func (b *buildContext) close() {
	if b.spool != nil {
		_ = b.spool.Close()
	}
	if b.pipe != nil {
		_ = b.pipe.Close()
	}
}

// sentReader tells how much was read of it.
type sentReader struct {
	r    io.Reader
	view buildview.View
	sent atomic.Int64
}

func (s *sentReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.view.Sent(s.sent.Add(int64(n)), err == io.EOF)
	return n, err
}
