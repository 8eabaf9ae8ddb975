package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/wire"
)

func buildVolumeLs(a *app, cmd *cobra.Command) {
	f := &listFlags{}
	f.register(cmd, "name, driver, label, dangling")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, filters, t, err := f.prepare(a)
		if err != nil {
			return err
		}
		list, warnings, err := c.VolumeList(cmd.Context(), filters)
		if err != nil {
			return err
		}
		for _, text := range warnings {
			a.warn("%s", text)
		}
		slices.SortFunc(list, func(x, y client.Volume) int { return strings.Compare(x.Name, y.Name) })
		rows := make([]format.Row, len(list))
		for i, v := range list {
			links, size := "N/A", "N/A"
			if v.UsageData != nil {
				links, size = countOrNA(v.UsageData.RefCount), sizeOrNA(v.UsageData.Size)
			}
			rows[i] = format.Row{Labels: v.Labels, Values: map[string]string{"Name": v.Name, "Driver": v.Driver, "Scope": v.Scope,
				"Mountpoint": v.Mountpoint, "Labels": formatLabels(v.Labels), "Links": links, "Size": size}}
			if f.quiet && f.format == "" {
				fmt.Fprintln(a.out, v.Name)
			}
		}
		if f.quiet && f.format == "" {
			return nil
		}
		return a.listOf(true, "Driver=DRIVER Name=VOLUME_NAME", "Scope=SCOPE Mountpoint=MOUNTPOINT Labels=LABELS Links=LINKS Size=SIZE").Write(a.out, t, rows)
	}
}

func buildVolumeCreate(a *app, cmd *cobra.Command) {
	var req client.VolumeCreate
	var name string
	var options, labels []string
	cmd.Flags().StringVarP(&req.Driver, "driver", "d", "local", "`DRIVER` what makes it")
	spec.List(cmd.Flags(), &options, "opt", "o", "`NAME=VALUE` option of the driver: size=10g, or type=, device= and o= of a mount")
	spec.List(cmd.Flags(), &labels, "label", "", "`NAME=VALUE` label")
	cmd.Flags().StringVar(&name, "name", "", "")
	_ = cmd.Flags().MarkHidden("name")
	cmd.Args = atMost(1, "one name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.Name = name; len(args) == 1 {
			req.Name = args[0]
		}
		var err error
		if req.DriverOpts, err = spec.Pairs("opt", options); err != nil {
			return err
		}
		if req.Labels, err = spec.Pairs("label", labels); err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		v, err := c.VolumeCreate(cmd.Context(), &req)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, v.Name)
		return nil
	}
}

func buildVolumeRm(a *app, cmd *cobra.Command) {
	var force bool
	var f planFlags
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not mind those that are not there")
	f.register(cmd)
	cmd.Args = atLeast(1, "a volume")
	cmd.ValidArgsFunction = a.completeVolumes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if planned, err := f.wanted(); planned || err != nil {
			return a.planRemoval(cmd, &f, wire.PlanRemoval{Kind: wire.PlanVolumes, Refs: args, Force: force}, volumeNamesOf, err)
		}
		return a.eachOf(cmd, args, volumeNamesOf, func(ctx context.Context, c *client.Client, ref string) error {
			err := c.VolumeRemove(ctx, ref, force)
			if isMissing(err) && (force || isSecond(ctx)) {
				return nil
			}
			return err
		})
	}
}

func buildVolumeInspect(a *app, cmd *cobra.Command) {
	var layout string
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json or a Go template")
	cmd.Args = atLeast(1, "a volume")
	cmd.ValidArgsFunction = a.completeVolumes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.inspectAll(cmd, layout, args, func(c *client.Client) inspector { return c.VolumeInspect })
	}
}
