package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/client"
	"berth/internal/wire"
)

// planFlags are what every command takes that removes: they ask what it would do.
type planFlags struct {
	dryRun, explain bool
	layout          string
}

func (f *planFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would go and how much comes back, and remove nothing")
	cmd.Flags().BoolVar(&f.explain, "explain", false, "as --dry-run, and say why what is kept is kept")
	cmd.Flags().StringVar(&f.layout, "format", "", "`FORMAT` of a dry run: table or json (table)")
}

// wanted reports whether a plan is asked for instead of the deed.
func (f *planFlags) wanted() (bool, error) {
	switch planned := f.dryRun || f.explain; {
	case f.layout != "" && f.layout != "table" && f.layout != "json":
		return planned, wrong("--format %s: want table or json", f.layout)
	case f.layout != "" && !planned:
		return false, wrong("--format goes with --dry-run or --explain")
	default:
		return planned, nil
	}
}

// plan prints what removals would do: the engine decides about that by the rules that it
// removes by. The exit code is that of the real thing. names lists what can be named.
// A failure so far is returned as it is.
func (a *app) plan(cmd *cobra.Command, f *planFlags, req wire.PlanRequest, names lister, err error) error {
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	plan, err := c.Plan(cmd.Context(), req)
	if isMissing(err) {
		return wrong("the engine at %s has no dry run", c.Endpoint()).WithHint("nothing was removed; it is another engine, or older than this program")
	}
	if err != nil {
		return err
	}
	if !f.explain {
		plan.Keep = nil
	}
	if err := a.printPlan(f, &plan); err != nil {
		return err
	}
	failed := false
	for _, r := range plan.Refused {
		var refusal error = &client.Refusal{Status: r.Status, Message: r.Message}
		forgiven := isMissing(refusal) && req.Remove.Force
		if names != nil {
			refusal = meant(cmd.Context(), c, r.Ref, names, refusal)
		}
		if !forgiven || req.Remove.Kind != wire.PlanNetworks {
			a.complain(refusal)
		}
		failed = failed || !forgiven
	}
	if failed {
		return &exit{codeFailed, nil}
	}
	return nil
}

func (a *app) printPlan(f *planFlags, plan *wire.Plan) error {
	if f.layout == "json" {
		return json.NewEncoder(a.out).Encode(plan)
	}
	a.printItems("Would remove:", plan.Remove)
	a.printItems("Would keep:", plan.Keep)
	_, err := fmt.Fprintln(a.out, "Space that would come back:", format.TotalBytes(plan.SpaceReclaimed))
	return err
}

func (a *app) printItems(heading string, items []wire.PlanItem) {
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

// planRemoval prints what the removal of things by name would do.
func (a *app) planRemoval(cmd *cobra.Command, f *planFlags, r wire.PlanRemoval, names lister, err error) error {
	return a.plan(cmd, f, wire.PlanRequest{Remove: &r}, names, err)
}
