package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"berth/internal/cli/progress"
	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

const saveExample = `  berth save -o images.tar app:1 db:1
  berth save app:1 | zstd > app.tar.zst`

func buildSave(a *app, cmd *cobra.Command) {
	var output string
	var platforms []string
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` write to it, not to standard output")
	spec.List(cmd.Flags(), &platforms, "platform", "", "`OS/ARCH` save these platforms alone")
	cmd.Args = atLeast(1, "an image")
	cmd.ValidArgsFunction = a.completeImages(-1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return a.download(output, func(w io.Writer) error { return c.ImageSave(cmd.Context(), args, platforms, w) })
	}
}

// sink is an archive on its way from the engine.
type sink struct {
	io.Writer
	got   int64
	shown *progress.Display
}

// Write counts what has arrived.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.got += int64(n)
	s.shown.Received(s.got)
	return n, err
}

// download writes what fetch fetches to a file, or to standard output when path
// is "" or "-". The file appears when it is complete.
func (a *app) download(path string, fetch func(io.Writer) error) error {
	if path == "" || path == "-" {
		if terminalOf(a.out) != nil {
			return wrong("an archive would be written to the terminal").WithHint("write it to a file with -o FILE, or redirect it")
		}
		return fetch(onlyWriter{a.out})
	}
	show := a.display(a.err, a.errTerminal() == nil)
	defer show.Close()
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return wrong("%s is a directory", path).WithHint("name a file in it")
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // a device or a pipe
		if err != nil {
			return err
		}
		if err := fetch(&sink{f, 0, show}); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	}
	return replaceFile(path, 0o644, func(w io.Writer) error { return fetch(&sink{w, 0, show}) })
}

// replaceFile puts a whole file in the place of another, or leaves that one. What
// is half done has no name yet where the file system can do that, so that nothing
// is left of it however the program ends.
func replaceFile(path string, mode os.FileMode, write func(io.Writer) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	named := ""
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err != nil {
		if f, err = os.CreateTemp(dir, "."+filepath.Base(path)+"-*"); err != nil {
			return err
		}
		named = f.Name()
		defer os.Remove(named)
	}
	if err = write(f); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && named == "" {
		named = filepath.Join(dir, fmt.Sprintf(".%s-%d", filepath.Base(path), os.Getpid()))
		defer os.Remove(named)
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, named, unix.AT_SYMLINK_FOLLOW)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(named, path)
}

const commitExample = `  berth commit web app:fixed
  berth commit -c 'CMD ["/app"]' -m 'made by hand' web app:fixed`

func buildCommit(a *app, cmd *cobra.Command) {
	var o client.CommitOptions
	var pause, noPause bool
	spec.List(cmd.Flags(), &o.Changes, "change", "c", "`INSTRUCTION` apply one of a Dockerfile to the image")
	cmd.Flags().StringVarP(&o.Author, "author", "a", "", "`NAME` who made it")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "`TEXT` remark for the image's history")
	cmd.Flags().BoolVarP(&pause, "pause", "p", true, "freeze the container meanwhile")
	cmd.Flags().BoolVar(&noPause, "no-pause", false, "do not freeze the container meanwhile")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 || len(args) == 2 {
			return nil
		}
		return badUsage(cmd, "%s needs a container, and may have a name for the image", cmd.CommandPath())
	}
	cmd.ValidArgsFunction = a.completeContainers()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			o.Ref = args[1]
		}
		o.NoPause = noPause || !pause
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			id, err := c.ContainerCommit(ctx, args[0], o)
			if err == nil {
				fmt.Fprintln(a.out, id)
			}
			return err
		})
	}
}

// onContainer does something with one container and, when there is none of the
// name, says which was probably meant.
func (a *app) onContainer(cmd *cobra.Command, ref string, do func(ctx context.Context, c *client.Client) error) error {
	c, err := a.engine()
	if err != nil {
		return err
	}
	ctx := client.WithNotice(cmd.Context(), func(text string) { fmt.Fprintf(a.err, "berth: %s: %s\n", ref, text) })
	return a.missingContainer(cmd, c, ref, do(ctx, c))
}

// atMost returns a check that a command got no more than n arguments.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return badUsage(cmd, "%s takes %s at most", cmd.CommandPath(), what)
	}
}

// inputIsTerminal reports whether somebody can be asked.
func (a *app) inputIsTerminal() bool { return terminal.Is(a.in) }
