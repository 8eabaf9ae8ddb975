package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"berth/internal/client"
	"berth/internal/wire"
)

// stopFlags are the flags of stop and restart.
type stopFlags struct {
	signal  string
	timeout int
}

func (f *stopFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.signal, "signal", "s", "", "`SIGNAL` send this first instead of its own")
	cmd.Flags().IntVarP(&f.timeout, "timeout", "t", 0, "`SECONDS` patience before a kill, -1 for ever (10)")
	cmd.Flags().IntVar(&f.timeout, "time", 0, "same as --timeout")
	_ = cmd.Flags().MarkHidden("time")
}

func (f *stopFlags) options(cmd *cobra.Command) client.StopOptions {
	o := client.StopOptions{Signal: f.signal}
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		o.Timeout = &f.timeout
	}
	return o
}

func buildStop(a *app, cmd *cobra.Command) {
	f := &stopFlags{}
	f.register(cmd)
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers("running", "paused", "restarting")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
			return c.ContainerStop(ctx, ref, f.options(cmd))
		})
	}
}

func buildRestart(a *app, cmd *cobra.Command) {
	f := &stopFlags{}
	f.register(cmd)
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
			return c.ContainerRestart(ctx, ref, f.options(cmd))
		})
	}
}

func buildKill(a *app, cmd *cobra.Command) {
	var signal string
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "`SIGNAL` send this one (KILL)")
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers("running", "paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
			return c.ContainerKill(ctx, ref, signal)
		})
	}
}

func buildRm(a *app, cmd *cobra.Command) {
	var o client.RemoveOptions
	var f planFlags
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "kill it first if it runs")
	cmd.Flags().BoolVarP(&o.Volumes, "volumes", "v", false, "remove its anonymous volumes too")
	cmd.Flags().BoolVarP(&o.Link, "link", "l", false, "remove a link instead")
	f.register(cmd)
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if planned, err := f.wanted(); planned || err != nil {
			if o.Link {
				return wrong("--link has no dry run")
			}
			return a.planRemoval(cmd, &f, wire.PlanRemoval{Kind: wire.PlanContainers, Refs: args, Force: o.Force, Volumes: o.Volumes}, containerNamesOf, err)
		}
		return a.each(cmd, args, func(ctx context.Context, c *client.Client, ref string) error {
			err := c.ContainerRemove(ctx, ref, o)
			if client.Broken(err) {
				return err
			}
			if isSecond(ctx) && isMissing(err) { // removed by an engine that died before it could say so
				return nil
			}
			if o.Force && isMissing(err) { // as rm -f of a file
				a.complain(err)
				return nil
			}
			return err
		})
	}
}

func buildWait(a *app, cmd *cobra.Command) {
	cmd.Args = atLeast(1, "a container")
	cmd.ValidArgsFunction = a.completeContainers()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		failed := false
		for _, ref := range args {
			waiting, err := c.BeginWait(cmd.Context(), ref, client.WaitNotRunning)
			if err == nil {
				err = waiting.Registered()
			}
			if err != nil {
				failed = true
				a.complain(a.missingContainer(cmd, c, ref, err))
				continue
			}
			code, err := exitStatus(cmd.Context(), c, waiting, ref, client.WaitNotRunning)
			if err != nil {
				failed = true
				a.complain(err)
				continue
			}
			fmt.Fprintln(a.out, strconv.Itoa(code))
		}
		if failed {
			return &exit{codeFailed, nil}
		}
		return nil
	}
}
