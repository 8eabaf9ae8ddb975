package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/archive"
	"berth/internal/cli/format"
	"berth/internal/client"
)

const cpExample = `  berth cp web:/var/log ./logs
  berth cp site/. web:/srv/www
  berth cp web:/etc - | tar t`

// maxLinks bounds how many symbolic links in a row are followed.
const maxLinks = 40

type cpFlags struct{ owners, follow, quiet bool }

func buildCp(a *app, cmd *cobra.Command) {
	f := &cpFlags{}
	cmd.Flags().BoolVarP(&f.owners, "archive", "a", false, "keep users, groups and all mode bits")
	cmd.Flags().BoolVarP(&f.follow, "follow-link", "L", false, "copy what the source points to, if it is a symbolic link")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "do not say what was copied")
	cmd.Args = exactly(2, "a source and a target, one of them CONTAINER:PATH")
	cmd.ValidArgsFunction = a.completeCopy
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, source := splitPlace(args[0])
		to, target := splitPlace(args[1])
		switch {
		case from != "" && to != "":
			return wrong("cannot copy from one container to another").WithHint("copy through a pipe: berth cp %s - | berth cp - %s", args[0], args[1])
		case from == "" && to == "":
			return badUsage(cmd, "neither %s nor %s is in a container", args[0], args[1])
		case source == "" || target == "":
			return wrong("a path is empty")
		case from != "":
			return a.onContainer(cmd, from, func(ctx context.Context, c *client.Client) error {
				return a.copyFrom(ctx, c, f, from, source, target)
			})
		}
		return a.onContainer(cmd, to, func(ctx context.Context, c *client.Client) error {
			return a.copyTo(ctx, c, f, source, to, target)
		})
	}
}

// splitPlace splits CONTAINER:PATH; container is "" for a path of this machine. What
// begins with a slash or a dot is one whatever else is in it.
func splitPlace(text string) (container, path string) {
	container, path, ok := strings.Cut(text, ":")
	if !ok || filepath.IsAbs(text) || strings.HasPrefix(text, ".") {
		return "", text
	}
	return container, path
}

func (a *app) completeCopy(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) >= 2 || strings.ContainsAny(word, "/.:") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var out []string
	for _, name := range a.containerNames(nil) {
		out = append(out, name+":")
	}
	return without(out, nil, word), cobra.ShellCompDirectiveNoSpace
}

// bare takes slashes from the end of a path, which would follow a link there.
func bare(path string) string {
	if short := strings.TrimRight(path, "/"); short != "" {
		return short
	}
	return "/"
}

// meansContents reports whether a path names what is in a directory.
func meansContents(path string) bool { return path == "." || strings.HasSuffix(path, "/.") }

// copyFrom copies out of a container.
func (a *app) copyFrom(ctx context.Context, c *client.Client, f *cpFlags, container, source, target string) error {
	asked := source
	if f.follow {
		var err error
		if source, err = followIn(ctx, c, container, source); err != nil {
			return err
		}
	}
	if target == "-" && terminalOf(a.out) != nil {
		return wrong("an archive would be written to the terminal").WithHint("redirect it, or name a directory")
	}
	stream, stat, err := c.CopyFrom(ctx, container, source)
	if err != nil {
		return err
	}
	defer stream.Close()
	if target == "-" {
		_, err := io.Copy(onlyWriter{a.out}, onlyReader{stream})
		return err
	}
	place, err := targetHere(target, nameOf(asked, stat), stat.Mode.IsDir(), meansContents(asked))
	if err != nil {
		return err
	}
	n, err := archive.Extract(stream, place, archive.Options{Owners: f.owners, Skipped: func(name, why string) {
		a.warn("%s was left out: %s", name, why)
	}})
	if err != nil {
		return err
	}
	a.copied(f, n, target)
	return nil
}

// nameOf returns what a source is called where it is copied to: as it was asked
// for, whatever a link of that name leads to.
func nameOf(source string, stat client.PathStat) string {
	name := path.Base(path.Clean(source))
	if name == "." || name == ".." || name == "/" {
		name = path.Base(path.Clean("/" + stat.Name))
	}
	return name
}

// targetHere returns the path that what was copied is to have.
func targetHere(target, name string, isDir, contents bool) (string, error) {
	info, err := os.Stat(target)
	switch {
	case err == nil && info.IsDir():
		if contents && isDir || name == "/" {
			return target, nil
		}
		return filepath.Join(target, name), nil
	case err == nil && isDir:
		return "", wrong("%s is a file, and a directory is to be copied there", target)
	case err == nil && strings.HasSuffix(target, "/"):
		return "", wrong("%s is not a directory", target)
	case err == nil:
		return filepath.EvalSymlinks(target)
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	case strings.HasSuffix(target, "/") && !isDir:
		return "", wrong("the directory %s does not exist", target).WithHint("make it first, or name a file")
	}
	clean := filepath.Clean(target)
	parent := filepath.Dir(clean)
	if _, err := os.Stat(parent); err != nil {
		return "", wrong("the directory %s does not exist", parent).WithHint("make it first: mkdir -p %s", parent)
	}
	return clean, nil
}

// followIn returns the path that a symbolic link in a container leads to. The
// engine never lets it leave the container.
func followIn(ctx context.Context, c *client.Client, container, at string) (string, error) {
	for range maxLinks {
		stat, err := c.PathStat(ctx, container, bare(at))
		if isMissing(err) { // the copy itself will say what is missing
			return at, nil
		}
		if err != nil {
			return "", err
		}
		if stat.LinkTarget == "" {
			return at, nil
		}
		if path.IsAbs(stat.LinkTarget) {
			at = stat.LinkTarget
		} else {
			at = path.Join(path.Dir(path.Join("/", at)), stat.LinkTarget)
		}
	}
	return "", wrong("%s: too many symbolic links", at)
}

// copyTo copies into a container.
func (a *app) copyTo(ctx context.Context, c *client.Client, f *cpFlags, source, container, target string) error {
	shown := container + ":" + target
	stat, err := c.PathStat(ctx, container, bare(target))
	if err == nil && stat.LinkTarget != "" { // a link to a directory is that directory
		followed, followErr := followIn(ctx, c, container, target)
		if followErr != nil {
			return followErr
		}
		target = followed
		stat, err = c.PathStat(ctx, container, bare(target))
	}
	exists := err == nil
	if isMissing(err) { // the path, or the container?
		_, err = c.ContainerState(ctx, container)
	}
	if err != nil {
		return err
	}
	if source == "-" {
		if exists && !stat.Mode.IsDir() {
			return wrong("%s:%s is not a directory, and an archive is to be extracted there", container, target)
		}
		if a.inputIsTerminal() {
			return wrong("an archive would be read from the terminal").WithHint("redirect it, or name a file")
		}
		return c.CopyTo(ctx, container, target, onlyReader{a.in}, f.owners)
	}
	info, err := statSource(source, f.follow)
	if err != nil {
		return err
	}
	dir, name, err := targetThere(source, info, container, target, stat, exists)
	if err != nil {
		return err
	}
	real := source
	if f.follow || strings.HasSuffix(source, "/") || meansContents(source) {
		if real, err = filepath.EvalSymlinks(source); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	sent := make(chan int64, 1)
	go func() {
		n, err := archive.Pack(w, real, name)
		_ = w.CloseWithError(err)
		sent <- n
	}()
	err = c.CopyTo(ctx, container, dir, r, f.owners)
	_ = r.CloseWithError(io.ErrClosedPipe)
	if n := <-sent; err == nil {
		a.copied(f, n, shown)
	}
	return err
}

// statSource looks at a source as a path with or without a slash at its end
// means it.
func statSource(source string, follow bool) (os.FileInfo, error) {
	if follow || strings.HasSuffix(source, "/") || meansContents(source) {
		return os.Stat(source)
	}
	return os.Lstat(source)
}

// targetThere returns the directory in the container that an archive is to be
// extracted in, and the name that its first entry is to have.
func targetThere(source string, info os.FileInfo, container, target string, stat client.PathStat, exists bool) (dir, name string, err error) {
	base := filepath.Base(source)
	if base == "." || base == ".." {
		if whole, err := filepath.Abs(source); err == nil {
			base = filepath.Base(whole)
		}
	}
	switch {
	case exists && stat.Mode.IsDir():
		if info.IsDir() && meansContents(source) {
			return target, ".", nil
		}
		return target, base, nil
	case exists && info.IsDir():
		return "", "", wrong("%s:%s is a file, and a directory is to be copied there", container, target)
	case exists && strings.HasSuffix(target, "/"):
		return "", "", wrong("%s:%s is not a directory", container, target)
	case !exists && strings.HasSuffix(target, "/") && !info.IsDir():
		return "", "", wrong("the directory %s:%s does not exist", container, target).WithHint("make it first, or name a file")
	}
	clean := path.Join("/", target)
	return path.Dir(clean), path.Base(clean), nil
}

func (a *app) copied(f *cpFlags, n int64, target string) {
	if !f.quiet {
		fmt.Fprintf(a.err, "Successfully copied %s to %s\n", format.Bytes(n), target)
	}
}
