package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/client"
)

const buildHistoryExample = `  berth build history ls
  berth build history inspect        the newest build
  berth build history trace -o build.svg 4f1c`

// buildCommand knows the commands about builds.
func buildCommand(name string) *command {
	switch name {
	case "build":
		return &command{"build", groupImages, "[FLAGS] DIR|ADDRESS|-", "Build an image from a Dockerfile", buildExample, buildBuild}
	case "build history", "buildx_history":
		return &command{"history", groupImages, "COMMAND", "Look at what was built", buildHistoryExample, buildBuildHistory}
	case "build cache":
		return &command{"cache", groupImages, "COMMAND", "Look at the cache of builds, and make it smaller", "", buildBuildCache}
	case "build history ls":
		return &command{"ls", groupImages, "[FLAGS]", "List builds, the newest first", "", buildHistoryLs}
	case "build history inspect":
		return &command{"inspect", groupImages, "[FLAGS] [BUILD]", "Show everything about a build", "", buildHistoryInspect}
	case "build history logs":
		return &command{"logs", groupImages, "[BUILD]", "Show what the steps of a build wrote", "", buildHistoryLogs}
	case "build history trace":
		return &command{"trace", groupImages, "[FLAGS] [BUILD]", "Show when which step of a build ran: a picture, or a trace for a browser",
			"  berth build history trace -o build.svg\n  berth build history trace --type chrome > build.json", buildHistoryTrace}
	case "build history rm":
		return &command{"rm", groupImages, "[FLAGS] BUILD...", "Forget builds", "", buildHistoryRm}
	case "build cache ls", "build cache du", "buildx_du":
		return &command{"du", groupImages, "[FLAGS]", "List what the cache of builds keeps, and how large it is", "", buildCacheDu}
	case "build cache prune", "builder prune", "buildx prune":
		return &command{"prune", groupImages, "[FLAGS]", "Remove from the cache of builds", cachePruneExample, buildCachePrune}
	}
	return nil
}

// members adds the commands of a group within a group.
func (a *app) members(cmd *cobra.Command, prefix, names string) {
	for name := range strings.FieldsSeq(names) {
		cmd.AddCommand(a.command(lookUp(prefix+" "+name), name))
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownMember(&group{name: prefix, members: names}, args[0])
		}
		a.help(cmd, nil)
		return nil
	}
}

func buildBuildHistory(a *app, cmd *cobra.Command) {
	a.members(cmd, "build history", "ls inspect logs trace rm")
}

func buildHistoryLs(a *app, cmd *cobra.Command) {
	var layout string
	var noTrunc, quiet bool
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		all, err := c.Builds(cmd.Context())
		if err != nil {
			return err
		}
		now := time.Now()
		rows := make([]format.Row, len(all))
		for i := range all {
			rows[i] = buildRow(&all[i], now, noTrunc)
			if quiet {
				fmt.Fprintln(a.out, all[i].ID)
			}
		}
		if quiet {
			return nil
		}
		return a.listOf(noTrunc, "ID=BUILD Name~=NAME Status=STATUS Steps=STEPS Created=CREATED Duration=DURATION",
			"Image=IMAGE Platform=PLATFORM Dockerfile=DOCKERFILE Context=CONTEXT Error=ERROR CreatedAt=CREATED_AT").Write(a.out, t, rows)
	}
}

func buildRow(b *client.BuildRecord, now time.Time, noTrunc bool) format.Row {
	id, image := b.ID, b.Image
	if !noTrunc {
		id, image = format.Truncate(id, 12), format.ShortID(image)
	}
	cached, total := 0, 0
	for _, s := range b.Steps {
		if strings.HasPrefix(s.Name, "[internal]") {
			continue
		}
		total++
		if s.Cached {
			cached++
		}
	}
	end := b.Finished
	if b.Status == "running" {
		end = now
	}
	took := ""
	if !end.IsZero() {
		took = end.Sub(b.Started).Round(10 * time.Millisecond).String()
	}
	return format.Row{Values: map[string]string{"ID": id, "Name": b.Name, "Status": b.Status,
		"Steps": fmt.Sprintf("%d (%d cached)", total, cached), "Created": format.Since(b.Started.Unix(), now), "Duration": took,
		"Image": image, "Platform": b.Platform, "Dockerfile": b.Dockerfile, "Context": b.Context, "Error": b.Error, "CreatedAt": b.Started.Format(time.RFC3339)}}
}

// newest returns the build that args name, "" for the newest.
func newest(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func buildHistoryInspect(a *app, cmd *cobra.Command) {
	var layout string
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json, or a Go template")
	cmd.Args = atMost(1, "one build")
	cmd.ValidArgsFunction = a.completeBuilds
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		raw, err := c.BuildInspect(cmd.Context(), newest(args))
		if err != nil {
			return err
		}
		if layout != "" {
			return a.printInspected(t, []json.RawMessage{raw})
		}
		var b client.BuildRecord
		if err := json.Unmarshal(raw, &b); err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		return a.describeBuild(&b)
	}
}

// describeBuild prints a build for a person.
func (a *app) describeBuild(b *client.BuildRecord) error {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%-11s %s\n", name+":", format.Printable(value))
		}
	}
	field("Build", b.ID)
	field("Name", b.Name)
	field("Status", b.Status)
	field("Error", b.Error)
	field("Image", b.Image)
	field("Tags", strings.Join(b.Tags, ", "))
	field("Context", b.Context)
	field("Dockerfile", b.Dockerfile)
	field("Target", b.Target)
	field("Platform", b.Platform)
	field("Arguments", strings.Join(b.Args, ", "))
	field("Started", b.Started.Local().Format(time.DateTime))
	if !b.Finished.IsZero() {
		field("Duration", b.Finished.Sub(b.Started).Round(time.Millisecond).String())
	}
	for _, w := range b.Warnings {
		field("Warning", w)
	}
	if len(b.Steps) == 0 {
		return nil
	}
	cells := [][]string{{"STEP", "RESULT", "TIME", "SIZE", "WHY"}}
	for _, s := range b.Steps {
		result, took, size := "run", s.Finished.Sub(s.Started).Round(time.Millisecond).String(), ""
		switch {
		case s.Skipped:
			result, took = "not needed", ""
		case s.Error != "":
			result = "failed"
		case s.Cached:
			result, took = "cached", ""
		case s.Shared:
			result = "shared"
		}
		if s.Size > 0 {
			size = format.Bytes(s.Size)
		}
		cells = append(cells, []string{format.Ellipsis(strings.Join(strings.Fields(s.Name), " "), 60), result, took, size, s.Why})
	}
	fmt.Fprintln(a.out)
	return format.Columns(a.out, cells)
}

func buildHistoryLogs(a *app, cmd *cobra.Command) {
	cmd.Args = atMost(1, "one build")
	cmd.ValidArgsFunction = a.completeBuilds
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.BuildLogs(cmd.Context(), newest(args), onlyWriter{a.out})
	}
}

func buildHistoryTrace(a *app, cmd *cobra.Command) {
	var output, kind string
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` write to it, not to standard output")
	cmd.Flags().StringVar(&kind, "type", "", "`TYPE` svg, or chrome for chrome://tracing and ui.perfetto.dev (by the file's name, or svg)")
	cmd.Args = atMost(1, "one build")
	cmd.ValidArgsFunction = a.completeBuilds
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case kind == "" && strings.HasSuffix(output, ".json"):
			kind = "chrome"
		case kind == "":
			kind = "svg"
		case kind != "svg" && kind != "chrome":
			return wrong("--type %q: use svg or chrome", kind)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		fetch := func(w io.Writer) error { return c.BuildTrace(cmd.Context(), newest(args), kind, w) }
		if output == "" || output == "-" {
			return fetch(onlyWriter{a.out})
		}
		return a.download(output, fetch)
	}
}

func buildHistoryRm(a *app, cmd *cobra.Command) {
	var all bool
	cmd.Flags().BoolVarP(&all, "all", "a", false, "forget all builds that do not run")
	cmd.ValidArgsFunction = a.completeBuilds
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		if all == (len(args) > 0) {
			return badUsage(cmd, "%s needs a build, or --all", cmd.CommandPath())
		}
		if all {
			list, err := c.Builds(cmd.Context())
			if err != nil {
				return err
			}
			for _, b := range list {
				if b.Status != "running" {
					args = append(args, b.ID)
				}
			}
		}
		failed := false
		for _, id := range args {
			if err := c.BuildRemove(cmd.Context(), id); err != nil {
				a.complain(err)
				failed = true
				continue
			}
			fmt.Fprintln(a.out, id)
		}
		if failed {
			return &exit{codeFailed, nil}
		}
		return nil
	}
}

func (a *app) completeBuilds(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	c, err := a.engine()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := c.Builds(cmd.Context())
	var ids []string
	for _, b := range list {
		ids = append(ids, b.ID)
	}
	return without(ids, args, word), cobra.ShellCompDirectiveNoFileComp
}
