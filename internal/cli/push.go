package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"berth/internal/client"
)

const pushExample = `  berth push registry.example/team/app:1
  berth push -a registry.example/team/app`

func buildPush(a *app, cmd *cobra.Command) {
	var o client.PushOptions
	var quiet bool
	cmd.Flags().BoolVarP(&o.AllTags, "all-tags", "a", false, "push every tag of the name")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the name alone")
	cmd.Flags().StringVar(&o.Platform, "platform", "", "`OS/ARCH` push what is for this platform alone")
	cmd.Flags().Bool("disable-content-trust", true, "")
	_ = cmd.Flags().MarkHidden("disable-content-trust")
	cmd.Args = exactly(1, "one image")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref := args[0]
		name, _ := client.SplitReference(ref)
		if o.AllTags && name != ref {
			return wrong("--all-tags and the tag or digest of %s contradict each other", ref)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		if o.Auth, err = authFor(cmd.Context(), ref); err != nil {
			return err
		}
		if !o.AllTags && withTag(ref) != ref && !quiet {
			fmt.Fprintln(a.out, "Using default tag: latest")
		}
		show := a.display(a.out, quiet)
		err = c.ImagePush(cmd.Context(), ref, o, show.Update)
		show.Close()
		if err != nil {
			return withLoginHint(ref, err)
		}
		if quiet {
			fmt.Fprintln(a.out, canonicalName(ref))
		}
		return nil
	}
}
