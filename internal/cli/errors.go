package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/cli/format"
	"berth/internal/cli/terminal"
	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/spelling"
)

// complain prints an error as "berth: what" and, on a line of its own, what to
// do about it.
func (a *app) complain(err error) {
	text, hint := err.Error(), ""
	var f *fault.Error
	if errors.As(err, &f) && f.Hint != "" {
		plain := *f
		plain.Hint = ""
		text = strings.Replace(text, f.Error(), plain.Error(), 1)
		hint = f.Hint
	}
	name := "berth:"
	if t := a.errTerminal(); t != nil && terminal.Colours(t) {
		name = "\x1b[1;31mberth:\x1b[0m"
	}
	fmt.Fprintln(a.err, name, format.Printable(strings.TrimRight(text, "\n")))
	if hint != "" {
		fmt.Fprintln(a.err, "  "+format.Printable(hint))
	}
}

// wrong returns an error of the command line itself.
func wrong(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "", "", format, args...)
}

// flagError explains a flag that could not be parsed.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	hint := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
	var missing *pflag.NotExistError
	if errors.As(err, &missing) {
		if near := nearestFlag(cmd, missing.GetSpecifiedName()); near != "" {
			hint = fmt.Sprintf("did you mean --%s?", near)
		}
	}
	return &exit{codeEngine, wrong("%s", err).WithHint("%s", hint)}
}

func nearestFlag(cmd *cobra.Command, name string) string {
	if len(name) < 2 {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return nearest(name, names)
}

// elsewhere are docker's commands that berth does not have, so that a hint can
// say so instead of guessing.
const elsewhere = " compose config context manifest node plugin secret service stack swarm trust "

func unknownCommand(name string) error {
	err := wrong("there is no command %q", name)
	if strings.Contains(elsewhere, " "+name+" ") {
		return &exit{codeFailed, err.WithHint("docker has it and berth does not; 'berth --help' lists what there is")}
	}
	if near := nearest(name, strings.Fields(topLevel+topGroups)); near != "" {
		return &exit{codeFailed, err.WithHint("did you mean 'berth %s'?", near)}
	}
	return &exit{codeFailed, err.WithHint("'berth --help' lists what there is")}
}

func unknownMember(g *group, name string) error {
	err := wrong("there is no command %q", g.name+" "+name)
	var names []string
	for member := range strings.FieldsSeq(g.members) {
		all, _ := memberOf(member)
		names = append(names, all...)
	}
	if near := nearest(name, names); near != "" {
		return &exit{codeFailed, err.WithHint("did you mean 'berth %s %s'?", g.name, near)}
	}
	return &exit{codeFailed, err.WithHint("'berth %s --help' lists what there is", g.name)}
}

// nearest returns the candidate that a typing error most likely meant, "" when
// none is close.
func nearest(word string, candidates []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		d := spelling.Distance(strings.ToLower(word), strings.ToLower(c))
		if len(word) >= 3 && strings.HasPrefix(c, word) {
			d = min(d, 1)
		}
		if d < distance {
			best, distance = c, d
		}
	}
	return best
}

// lister fetches the names of all things of a kind.
type lister = func(context.Context, *client.Client) ([]string, error)

// missingContainer adds the name of a container that was probably meant to an
// error that says there is none.
func (a *app) missingContainer(cmd *cobra.Command, c *client.Client, ref string, err error) error {
	return meant(cmd.Context(), c, ref, containerNamesOf, err)
}

// meant adds the name that was probably meant to an error that says there is
// nothing of the name ref.
func meant(ctx context.Context, c *client.Client, ref string, names lister, err error) error {
	var refusal *client.Refusal
	if !errors.As(err, &refusal) || refusal.Status != 404 {
		return err
	}
	known, listErr := names(ctx, c)
	if listErr != nil || slices.Contains(known, ref) { // it is something else that is missing
		return err
	}
	if near := nearest(ref, known); near != "" {
		return &fault.Error{Kind: fault.NotFound, Err: refusal, Hint: "did you mean " + near + "?"}
	}
	return err
}

// atLeast returns a check that a command got n arguments or more.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return badUsage(cmd, "%s needs %s", cmd.CommandPath(), what)
	}
}

// exactly returns a check that a command got n arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return badUsage(cmd, "%s needs %s", cmd.CommandPath(), what)
	}
}

func badUsage(cmd *cobra.Command, format string, args ...any) error {
	code := codeFailed
	if name := cmd.Name(); name == "run" || name == "create" {
		code = codeEngine
	}
	return &exit{code, wrong(format, args...).WithHint("usage: %s; see '%s --help'", cmd.UseLine(), cmd.CommandPath())}
}
