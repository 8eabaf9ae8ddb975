package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/wire"
)

const cachePruneExample = `  berth build cache prune
  berth build cache prune --max-used-space 10gb --dry-run
  berth build cache prune -a -f --filter unused-for=168h`

func buildBuildCache(a *app, cmd *cobra.Command) { a.members(cmd, "build cache", "ls du prune") }

func buildCacheDu(a *app, cmd *cobra.Command) {
	var layout string
	var filter []string
	var noTrunc, verbose, mounts bool
	cmd.Flags().BoolVar(&mounts, "mounts", false, "cache mounts alone")
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "same as --no-trunc")
	spec.List(cmd.Flags(), &filter, "filter", "", "`NAME=VALUE` those with it alone: id, type, description, inuse, shared")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		filters, err := cacheFilters(filter, mounts)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		all, err := c.BuildCache(cmd.Context(), filters)
		if err != nil {
			return err
		}
		noTrunc = noTrunc || verbose
		var rows []format.Row
		var total, shared, reclaimable int64
		now := time.Now()
		for i := range all {
			r := &all[i]
			total += r.Size
			if r.Shared {
				shared += r.Size
			} else if !r.InUse {
				reclaimable += r.Size
			}
			rows = append(rows, cacheRow(r, now, noTrunc))
		}
		err = a.listOf(noTrunc, "ID=ID Type=TYPE Size=SIZE LastUsed=LAST_USED UsageCount=USES Shared=SHARED Description~=DESCRIPTION",
			"CreatedAt=CREATED InUse=IN_USE").Write(a.out, t, rows)
		if err != nil || t.Kind != format.Table || layout != "" {
			return err
		}
		_, err = fmt.Fprintf(a.out, "\nTotal: %s, of which images have %s too. Pruning gives back %s.\n",
			format.TotalBytes(total), format.TotalBytes(shared), format.TotalBytes(reclaimable))
		return err
	}
}

// cacheFilters reads filters; mounts means cache mounts alone.
func cacheFilters(list []string, mounts bool) (client.Filters, error) {
	filters, err := parseFilters(list)
	if err == nil && mounts {
		if filters == nil {
			filters = client.Filters{}
		}
		filters.Add("type", "exec.cachemount")
	}
	return filters, err
}

func cacheRow(r *client.CacheRecord, now time.Time, noTrunc bool) format.Row {
	id := r.ID
	if !noTrunc {
		id = format.Truncate(id, 12)
	}
	used := "never"
	if r.LastUsedAt != nil && !r.LastUsedAt.IsZero() {
		used = format.Since(r.LastUsedAt.Unix(), now)
	}
	return format.Row{Values: map[string]string{"ID": id, "Type": r.Type, "Description": strings.Join(strings.Fields(r.Description), " "),
		"Size": format.Bytes(r.Size), "LastUsed": used, "UsageCount": strconv.Itoa(r.UsageCount), "Shared": strconv.FormatBool(r.Shared),
		"InUse": strconv.FormatBool(r.InUse), "CreatedAt": r.CreatedAt.Format(time.RFC3339)}}
}

func buildCachePrune(a *app, cmd *cobra.Command) {
	var all, force, verbose, mounts bool
	var plan planFlags
	var filter []string
	var keep, most, free string
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also what images have in common with it: frees nothing, and builds are slower")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	plan.register(cmd)
	cmd.Flags().BoolVar(&mounts, "mounts", false, "cache mounts alone")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "accepted for docker's sake")
	_ = cmd.Flags().MarkHidden("verbose")
	cmd.Flags().StringVar(&most, "max-used-space", "", "`SIZE` remove the least recently used until no more is left")
	cmd.Flags().StringVar(&free, "min-free-space", "", "`SIZE` remove the least recently used until so much of the disk is free")
	cmd.Flags().StringVar(&keep, "reserved-space", "", "`SIZE` leave so much, whatever the others say")
	cmd.Flags().StringVar(&keep, "keep-storage", "", "`SIZE` same as --reserved-space")
	_ = cmd.Flags().MarkHidden("keep-storage")
	spec.List(cmd.Flags(), &filter, "filter", "", "`NAME=VALUE` those with it alone: until=24h, type, id, description, inuse, shared")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := client.CachePrune{All: all}
		var err error
		if o.Filters, err = cacheFilters(filter, mounts); err != nil {
			return err
		}
		for text, to := range map[*string]*int64{&keep: &o.Reserved, &most: &o.MaxUsed, &free: &o.MinFree} {
			if *text == "" {
				continue
			}
			if *to, err = spec.Size(*text); err != nil {
				return wrong("%s", err)
			}
			*to = max(*to, 1) // nothing is a budget, too
		}
		if planned, err := plan.wanted(); planned || err != nil {
			return a.plan(cmd, &plan, wire.PlanRequest{Prunes: []wire.PlanPrune{{Kind: wire.PlanCache, Filters: o.Filters,
				All: o.All, MaxUsed: o.MaxUsed, MinFree: o.MinFree, Reserved: o.Reserved}}}, nil, err)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		what := "the build cache that no image has in common with it"
		if all {
			what = "all build cache"
		}
		if err := a.confirm(&pruneFlags{force: force}, "WARNING! This will remove "+what+".\n"); err != nil {
			return err
		}
		report, err := c.BuildPrune(cmd.Context(), o)
		if err != nil {
			return err
		}
		if len(report.CachesDeleted) > 0 {
			fmt.Fprintf(a.out, "Deleted build cache objects:\n%s\n\n", strings.Join(report.CachesDeleted, "\n"))
		}
		fmt.Fprintln(a.out, "Total reclaimed space:", format.TotalBytes(int64(report.SpaceReclaimed)))
		return nil
	}
}
