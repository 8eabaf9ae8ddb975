package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
)

func buildRename(a *app, cmd *cobra.Command) {
	cmd.Args = exactly(2, "a container and its new name")
	cmd.ValidArgsFunction = a.completeContainer()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			return c.ContainerRename(ctx, args[0], args[1])
		})
	}
}

func buildPause(a *app, cmd *cobra.Command) {
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers("running")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error { return c.ContainerPause(ctx, ref) })
	}
}

func buildUnpause(a *app, cmd *cobra.Command) {
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers("paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error { return c.ContainerUnpause(ctx, ref) })
	}
}

const updateExample = `  berth update --memory 512m --cpus 1.5 web
  berth update --restart unless-stopped $(berth ps -q)`

func buildUpdate(a *app, cmd *cobra.Command) {
	f := &spec.UpdateFlags{}
	f.Register(cmd.Flags())
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers()
	if a.completing {
		_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"no", "on-failure", "always", "unless-stopped"},
			cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := f.Request()
		if err != nil {
			return err
		}
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
			warnings, err := c.ContainerUpdate(ctx, ref, req)
			for _, text := range warnings {
				a.warn("%s: %s", ref, text)
			}
			return err
		})
	}
}

func buildTop(a *app, cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainer("running", "paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			top, err := c.ContainerTop(ctx, args[0], strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			return format.Columns(a.out, append([][]string{top.Titles}, top.Processes...))
		})
	}
}

func buildDiff(a *app, cmd *cobra.Command) {
	var layout string
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Args = exactly(1, "one container")
	cmd.ValidArgsFunction = a.completeContainer()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			changes, err := c.ContainerChanges(ctx, args[0])
			if err != nil {
				return err
			}
			if layout != "" {
				rows := make([]format.Row, len(changes))
				for i, change := range changes {
					rows[i] = format.Row{Values: map[string]string{"Type": kindOfChange(change.Kind), "Path": change.Path}}
				}
				return a.listOf(true, "Type=CHANGE_TYPE Path=PATH", "").Write(a.out, t, rows)
			}
			var b strings.Builder
			for _, change := range changes {
				b.WriteString(kindOfChange(change.Kind) + " " + change.Path + "\n")
			}
			_, err = io.WriteString(a.out, b.String())
			return err
		})
	}
}

func kindOfChange(kind int) string {
	switch kind {
	case client.ChangeModified:
		return "C"
	case client.ChangeAdded:
		return "A"
	case client.ChangeDeleted:
		return "D"
	}
	return strconv.Itoa(kind)
}

func buildExport(a *app, cmd *cobra.Command) {
	var output string
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` write to it, not to standard output")
	cmd.Args = exactly(1, "one container")
	cmd.ValidArgsFunction = a.completeContainer()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			return a.download(output, func(w io.Writer) error { return c.ContainerExport(ctx, args[0], w) })
		})
	}
}

func buildPort(a *app, cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 || len(args) == 2 {
			return nil
		}
		return badUsage(cmd, "%s needs a container, and may have a port", cmd.CommandPath())
	}
	cmd.ValidArgsFunction = a.completeContainer("running", "paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onContainer(cmd, args[0], func(ctx context.Context, c *client.Client) error {
			raw, err := c.ContainerInspect(ctx, args[0], false)
			if err != nil {
				return err
			}
			return a.printPublished(raw, args)
		})
	}
}

// printPublished prints where a container's ports are to be found.
func (a *app) printPublished(raw json.RawMessage, args []string) error {
	var in struct {
		NetworkSettings struct {
			Ports map[string][]client.PortBinding
		}
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	ports := in.NetworkSettings.Ports
	if len(args) == 2 {
		want := strings.ToLower(args[1])
		if !strings.Contains(want, "/") {
			want += "/tcp"
		}
		if len(ports[want]) == 0 {
			return wrong("%s publishes no port %s", args[0], want).WithHint("'berth port %s' lists what it publishes", args[0])
		}
		for _, b := range ports[want] {
			fmt.Fprintln(a.out, address(b))
		}
		return nil
	}
	names := slices.SortedFunc(maps.Keys(ports), func(x, y string) int {
		px, _, _ := strings.Cut(x, "/")
		py, _, _ := strings.Cut(y, "/")
		nx, _ := strconv.Atoi(px)
		ny, _ := strconv.Atoi(py)
		if nx != ny {
			return nx - ny
		}
		return strings.Compare(x, y)
	})
	for _, name := range names {
		for _, b := range ports[name] {
			fmt.Fprintf(a.out, "%s -> %s\n", name, address(b))
		}
	}
	return nil
}

func address(b client.PortBinding) string {
	if strings.Contains(b.HostIP, ":") {
		return "[" + b.HostIP + "]:" + b.HostPort
	}
	return b.HostIP + ":" + b.HostPort
}
