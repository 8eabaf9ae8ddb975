package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/wire"
)

const pruneExample = `  berth image prune
  berth image prune -a --filter until=240h --dry-run`

// pruneFlags are what all prunes take.
type pruneFlags struct {
	planFlags
	all, force, volumes bool
	filter              []string
}

func (f *pruneFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "do not ask")
	f.planFlags.register(cmd)
	spec.List(cmd.Flags(), &f.filter, "filter", "", "`NAME=VALUE` remove those with it alone: until, label, label!")
	cmd.Args = exactly(0, "no arguments")
}

// kindOfPrune is one kind of things that can be pruned.
type kindOfPrune struct {
	path    string // in the API, but of the build cache
	heading string // of the list of what went
	sized   bool   // removal gives space back
}

// The kinds, in the order in which everything is pruned.
func pruneKind(name string) kindOfPrune {
	switch name {
	case "container":
		return kindOfPrune{"containers", "Deleted Containers:", true}
	case "network":
		return kindOfPrune{"networks", "Deleted Networks:", false}
	case "volume":
		return kindOfPrune{"volumes", "Deleted Volumes:", true}
	}
	return kindOfPrune{"images", "Deleted Images:", true}
}

func buildImagePrune(a *app, cmd *cobra.Command) {
	f := &pruneFlags{}
	f.register(cmd)
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "remove images with a name too, when no container uses them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		what := "all dangling images"
		if f.all {
			what = "all images without at least one container associated to them"
		}
		return a.prune(cmd, f, "image", what)
	}
}

// prune asks and removes one kind of things.
func (a *app) prune(cmd *cobra.Command, f *pruneFlags, name, what string) error {
	filters, err := f.filters(name)
	if err != nil {
		return err
	}
	kind := pruneKind(name)
	if planned, err := f.wanted(); planned || err != nil {
		return a.plan(cmd, &f.planFlags, wire.PlanRequest{Prunes: []wire.PlanPrune{{Kind: name, Filters: filters}}}, nil, err)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	if err := a.confirm(f, "WARNING! This will remove "+what+".\n"); err != nil {
		return err
	}
	report, err := c.Prune(cmd.Context(), kind.path, filters)
	if err != nil {
		return err
	}
	a.printPruned(kind, &report)
	if kind.sized {
		fmt.Fprintln(a.out, "Total reclaimed space:", format.TotalBytes(int64(report.SpaceReclaimed)))
	}
	return nil
}

// filters returns a kind's filters.
func (f *pruneFlags) filters(name string) (client.Filters, error) {
	filters, err := parseFilters(f.filter)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "image" && f.all:
		filters.Add("dangling", "false")
	case name == "volume" && f.all:
		filters.Add("all", "true")
	}
	return filters, nil
}

// confirm asks before something is removed. No answer is no.
func (a *app) confirm(f *pruneFlags, warning string) error {
	if f.force {
		return nil
	}
	fmt.Fprintf(a.out, "%sAre you sure you want to continue? [y/N] ", warning)
	line, _ := bufio.NewReader(onlyReader{a.in}).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	if !strings.HasSuffix(line, "\n") {
		fmt.Fprintln(a.out)
	}
	return &exit{codeFailed, wrong("nothing was removed").WithHint("answer y, or use --force; --dry-run shows what would go")}
}

func (a *app) printPruned(kind kindOfPrune, r *client.PruneReport) {
	gone := append(append(append([]string(nil), r.ContainersDeleted...), r.NetworksDeleted...), r.VolumesDeleted...)
	for _, image := range r.ImagesDeleted {
		if image.Untagged != "" {
			gone = append(gone, "untagged: "+image.Untagged)
		} else {
			gone = append(gone, "deleted: "+image.Deleted)
		}
	}
	if len(gone) > 0 {
		fmt.Fprintf(a.out, "%s\n%s\n\n", kind.heading, strings.Join(gone, "\n"))
	}
}

// notOffered reports whether an engine answered that it does not have something.
func notOffered(err error) bool {
	var refusal *client.Refusal
	return errors.As(err, &refusal) && (refusal.Status == 404 || refusal.Status == 501 || refusal.Status == 503)
}

func buildContainerPrune(a *app, cmd *cobra.Command) {
	f := &pruneFlags{}
	f.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.prune(cmd, f, "container", "all stopped containers")
	}
}

func buildNetworkPrune(a *app, cmd *cobra.Command) {
	f := &pruneFlags{}
	f.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.prune(cmd, f, "network", "all custom networks not used by at least one container")
	}
}

func buildVolumePrune(a *app, cmd *cobra.Command) {
	f := &pruneFlags{}
	f.register(cmd)
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "remove volumes with a name too, when no container uses them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		what := "anonymous local volumes not used by at least one container"
		if f.all {
			what = "all local volumes not used by at least one container"
		}
		return a.prune(cmd, f, "volume", what)
	}
}

func buildSystemPrune(a *app, cmd *cobra.Command) {
	f := &pruneFlags{}
	f.register(cmd)
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "remove images with a name too, when no container uses them")
	cmd.Flags().BoolVar(&f.volumes, "volumes", false, "remove anonymous volumes that no container uses too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.pruneAll(cmd, f) }
}

// pruneAll removes everything that nothing uses, in the order in which one thing
// ceases to be used by another.
func (a *app) pruneAll(cmd *cobra.Command, f *pruneFlags) error {
	names := []string{"container", "network"}
	warning := "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
	if f.volumes {
		names = append(names, "volume")
		warning += "  - all anonymous volumes not used by at least one container\n"
	}
	names = append(names, "image")
	if f.all {
		warning += "  - all images without at least one container associated to them\n"
	} else {
		warning += "  - all dangling images\n"
	}
	warning += "  - unused build cache\n"
	if len(f.filter) > 0 {
		warning += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(f.filter, "\n  - ") + "\n"
	}
	var steps []wire.PlanPrune
	for _, name := range names {
		forKind := *f
		forKind.all = f.all && name == "image"
		filters, err := forKind.filters(name)
		if err != nil {
			return err
		}
		if name == "volume" {
			delete(filters, "until") // volumes have no time of last use
		}
		steps = append(steps, wire.PlanPrune{Kind: name, Filters: filters})
	}
	if planned, err := f.wanted(); planned || err != nil {
		return a.plan(cmd, &f.planFlags, wire.PlanRequest{Prunes: append(steps, wire.PlanPrune{Kind: wire.PlanCache})}, nil, err)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	if err := a.confirm(f, warning+"\n"); err != nil {
		return err
	}
	return a.pruneSteps(cmd.Context(), c, steps)
}

// pruneSteps prunes one kind after the other, and the build cache at the end.
func (a *app) pruneSteps(ctx context.Context, c *client.Client, steps []wire.PlanPrune) error {
	var freed uint64
	for _, step := range steps {
		report, err := c.Prune(ctx, pruneKind(step.Kind).path, step.Filters)
		if err != nil {
			return fmt.Errorf("%ss: %w", step.Kind, err)
		}
		a.printPruned(pruneKind(step.Kind), &report)
		freed += report.SpaceReclaimed
	}
	report, err := c.Prune(ctx, "build", nil)
	if err != nil && !notOffered(err) {
		return fmt.Errorf("build cache: %w", err)
	}
	if len(report.CachesDeleted) > 0 {
		fmt.Fprintf(a.out, "Deleted build cache objects:\n%s\n\n", strings.Join(report.CachesDeleted, "\n"))
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", format.TotalBytes(int64(freed+report.SpaceReclaimed)))
	return nil
}
