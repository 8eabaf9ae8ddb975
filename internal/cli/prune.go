package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
)

const pruneExample = `  berth image prune
  berth image prune -a --filter until=240h --dry-run`

// pruneFlags are what all prunes take.
type pruneFlags struct {
	all, force, dryRun, explain, volumes bool
	filter                               []string
}

func (f *pruneFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would go and how much comes back, and remove nothing")
	cmd.Flags().BoolVar(&f.explain, "explain", false, "as --dry-run, and say why what is kept is kept")
	spec.List(cmd.Flags(), &f.filter, "filter", "", "`NAME=VALUE` remove those with it alone: until, label, label!")
	cmd.Args = exactly(0, "no arguments")
}

// kindOfPrune is one kind of things that can be pruned.
type kindOfPrune struct {
	path    string // in the API
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
	case "build":
		return kindOfPrune{"build", "Deleted build cache objects:", true}
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
	c, err := a.engine()
	if err != nil {
		return err
	}
	kind := pruneKind(name)
	if f.dryRun || f.explain {
		return a.planned(cmd.Context(), c, f, []string{name})
	}
	if err := a.confirm(f, "WARNING! This will remove "+what+".\n"); err != nil {
		return err
	}
	report, err := c.Prune(cmd.Context(), kind.path, filters, false)
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
	case name == "build":
		return nil, nil // all that is unused goes
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

// planned prints what prunes of the kinds would do.
func (a *app) planned(ctx context.Context, c *client.Client, f *pruneFlags, names []string) error {
	var remove, keep []client.PlanItem
	var freed uint64
	for _, name := range names {
		filters, err := f.filters(name)
		if err != nil {
			return err
		}
		if err := hasDryRun(ctx, c, pruneKind(name)); err != nil {
			return err
		}
		report, err := c.Prune(ctx, pruneKind(name).path, filters, true)
		if err != nil {
			return err
		}
		remove, keep, freed = append(remove, report.Remove...), append(keep, report.Keep...), freed+report.SpaceReclaimed
	}
	a.printPlan("Would remove:", remove)
	if f.explain {
		a.printPlan("Would keep:", keep)
	}
	_, err := fmt.Fprintln(a.out, "Space that would come back:", format.TotalBytes(int64(freed)))
	return err
}

// nothing is a label that no thing has: a prune narrowed by it removes nothing.
const nothing = "berth.dry-run.probe.1f6c0d9b"

// hasDryRun asks for a dry run of nothing. An engine that does not know the word
// would take a dry run for the real thing.
func hasDryRun(ctx context.Context, c *client.Client, kind kindOfPrune) error {
	filters := client.Filters{}
	if kind.path == "build" { // which has no labels
		filters.Add("id", nothing)
	} else {
		filters.Add("label", nothing)
	}
	probe, err := c.Prune(ctx, kind.path, filters, true)
	if err != nil {
		return err
	}
	if !probe.DryRun {
		return wrong("this engine has no dry run of %s", kind.path).WithHint("nothing was removed")
	}
	return nil
}

// plannedRemoval prints what a removal of containers would do, by the rule that
// the engine goes by: one that runs stays, unless it is killed first.
func (a *app) plannedRemoval(cmd *cobra.Command, refs []string, force, explain bool) error {
	c, err := a.engine()
	if err != nil {
		return err
	}
	var remove, keep []client.PlanItem
	freed, failed := int64(0), false
	for _, ref := range refs {
		raw, err := c.ContainerInspect(cmd.Context(), ref, true)
		var s struct {
			ID     string `json:"Id"`
			Name   string
			SizeRw int64
			State  struct{ Running bool }
		}
		if err == nil {
			err = json.Unmarshal(raw, &s)
		}
		if err != nil {
			a.complain(a.missingContainer(cmd, c, ref, err))
			failed = failed || !force || !isMissing(err)
			continue
		}
		item := client.PlanItem{Kind: "container", ID: s.ID, Names: []string{trimSlash(s.Name)}, Size: s.SizeRw, Reason: "it was named, and does not run"}
		switch {
		case s.State.Running && !force:
			item.Reason = "it runs: stop it first, or use --force"
			keep = append(keep, item)
			continue
		case s.State.Running:
			item.Reason = "it was named; it runs and would be killed"
		}
		remove, freed = append(remove, item), freed+s.SizeRw
	}
	a.printPlan("Would remove:", remove)
	if explain {
		a.printPlan("Would keep:", keep)
	}
	fmt.Fprintln(a.out, "Space that would come back:", format.TotalBytes(freed))
	if failed {
		return &exit{codeFailed, nil}
	}
	return nil
}

func (a *app) printPlan(heading string, items []client.PlanItem) {
	if len(items) == 0 {
		return
	}
	rows := make([]format.Row, len(items))
	for i, item := range items {
		name := strings.Join(item.Names, ", ")
		if name == "" {
			name = "<none>"
		}
		rows[i] = format.Row{Values: map[string]string{"Kind": item.Kind, "ID": format.ShortID(item.ID), "Name": name,
			"Size": format.Bytes(item.Size), "Reason": item.Reason}}
	}
	fmt.Fprintln(a.out, heading)
	table, _ := format.Parse("") // always parses
	_ = a.listOf(false, "Kind=KIND ID=ID Name~=NAME Size=SIZE Reason~=WHY", "").Write(a.out, table, rows)
	fmt.Fprintln(a.out)
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
	c, err := a.engine()
	if err != nil {
		return err
	}
	forKind := *f
	if f.dryRun || f.explain {
		return a.planned(cmd.Context(), c, f, append(names, "build"))
	}
	if err := a.confirm(f, warning+"\n"); err != nil {
		return err
	}
	var freed uint64
	for _, name := range names {
		forKind.all = f.all && name == "image"
		filters, err := forKind.filters(name)
		if err != nil {
			return err
		}
		if name == "volume" {
			delete(filters, "until") // volumes have no time of last use
		}
		report, err := c.Prune(cmd.Context(), pruneKind(name).path, filters, false)
		if err != nil {
			return fmt.Errorf("%ss: %w", name, err)
		}
		a.printPruned(pruneKind(name), &report)
		freed += report.SpaceReclaimed
	}
	report, err := c.Prune(cmd.Context(), "build", nil, false)
	if err != nil && !notOffered(err) {
		return fmt.Errorf("build cache: %w", err)
	}
	if len(report.CachesDeleted) > 0 {
		fmt.Fprintf(a.out, "Deleted build cache objects:\n%s\n\n", strings.Join(report.CachesDeleted, "\n"))
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", format.TotalBytes(int64(freed+report.SpaceReclaimed)))
	return nil
}
