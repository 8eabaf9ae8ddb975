package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/progress"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

const pullExample = `  berth pull alpine
  berth pull --platform linux/arm64 ghcr.io/owner/app:1.2`

func buildPull(a *app, cmd *cobra.Command) {
	var o client.PullOptions
	var quiet bool
	cmd.Flags().BoolVarP(&o.AllTags, "all-tags", "a", false, "pull every tag of the name")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the name alone")
	cmd.Flags().StringVar(&o.Platform, "platform", "", "`OS/ARCH` pull the image for this platform")
	cmd.Flags().BoolVar(&o.AllPlatforms, "all-platforms", false, "pull the image for every platform it is made for")
	cmd.Flags().Bool("disable-content-trust", true, "")
	_ = cmd.Flags().MarkHidden("disable-content-trust")
	cmd.Args = exactly(1, "one image")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		ref := args[0]
		if o.AllPlatforms && o.Platform != "" {
			return wrong("--all-platforms and --platform contradict each other")
		}
		if o.AllTags {
			if name, _ := client.SplitReference(ref); name != ref {
				return wrong("--all-tags and the tag or digest of %s contradict each other", ref)
			}
		} else if withTag(ref) != ref && !quiet {
			fmt.Fprintln(a.out, "Using default tag: latest")
		}
		o.Auth = a.authOrNobody(cmd.Context(), ref)
		show := a.display(a.out, quiet)
		err = c.ImagePull(cmd.Context(), ref, o, show.Update)
		show.Close()
		if err != nil {
			return withLoginHint(ref, err)
		}
		name := canonicalName(ref)
		if o.AllTags {
			name = strings.TrimSuffix(name, ":latest")
		}
		fmt.Fprintln(a.out, name)
		return nil
	}
}

// withTag returns a reference as it is looked up: with the tag latest when it
// has neither tag nor digest.
func withTag(ref string) string {
	if strings.Contains(ref, "@") {
		return ref
	}
	name, tag := client.SplitReference(ref)
	return name + ":" + tag
}

// canonicalName returns a reference with its registry spelled out.
func canonicalName(ref string) string {
	ref = withTag(ref)
	first, _, slash := strings.Cut(ref, "/")
	switch {
	case !slash:
		return "docker.io/library/" + ref
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + ref
	}
	return ref
}

// pullFor pulls the image of a run, showing progress on standard error.
func (a *app) pullFor(ctx context.Context, c *client.Client, f *runFlags, image string) error {
	show := a.display(a.err, f.Quiet)
	defer show.Close()
	o := client.PullOptions{Platform: f.Platform, Auth: a.authOrNobody(ctx, image)}
	return withLoginHint(image, c.ImagePull(ctx, image, o, show.Update))
}

// display returns a progress display on w; quiet shows nothing.
func (a *app) display(w io.Writer, quiet bool) *progress.Display {
	if quiet {
		return progress.New(progress.Options{Out: io.Discard})
	}
	o := progress.Options{Out: w}
	if t := terminalOf(w); t != nil {
		o.TTY, o.Unicode, o.Colour = true, terminal.Unicode(), terminal.Colours(t)
		o.Rows, o.Columns, _ = terminal.Size(t)
	}
	return progress.New(o)
}
