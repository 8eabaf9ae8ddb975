package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/cli/terminal"
)

// helpFlag is --help, or --help=all.
type helpFlag struct{ asked, all bool }

// String must read as a boolean for cobra.
func (h *helpFlag) String() string { return strconv.FormatBool(h.asked) }

// Type must be that of a boolean for cobra.
func (h *helpFlag) Type() string { return "bool" }

// Set takes "all" beside a boolean.
func (h *helpFlag) Set(text string) error {
	if text == "all" {
		h.asked, h.all = true, true
		return nil
	}
	on, err := strconv.ParseBool(text)
	h.asked = on
	return err
}

func addHelpFlag(cmd *cobra.Command, shorthand string) {
	f := cmd.Flags().VarPF(&helpFlag{}, "help", shorthand, "show this help")
	f.NoOptDefVal = "true"
}

// allFlags reports whether the help is to show every flag: when asked to, and
// when it does not go to a person's terminal but to grep or a pager.
func (a *app) allFlags(cmd *cobra.Command) bool {
	h, _ := cmd.Flags().Lookup("help").Value.(*helpFlag)
	return h != nil && h.all || terminalOf(a.out) == nil
}

// flagGroup is one heading of the help of a command with many flags.
type flagGroup struct {
	heading string
	names   string // space-separated
	always  bool   // shown without --help=all
}

// runGroups order the flags of run and create.
var runGroups = []flagGroup{
	{"Common", "detach interactive tty rm name env env-file publish volume workdir user entrypoint network restart memory cpus pull", true},
	{"Process", "hostname domainname init stop-signal stop-timeout attach sig-proxy detach-keys label label-file annotation cidfile quiet platform runtime isolation", false},
	{"Network", "publish-all expose dns dns-option dns-search add-host network-alias ip ip6 mac-address link link-local-ip", false},
	{"Files", "mount tmpfs read-only volumes-from volume-driver storage-opt shm-size", false},
	{"Limits", "memory-reservation memory-swap memory-swappiness cpu-shares cpu-period cpu-quota cpu-rt-period cpu-rt-runtime " +
		"cpuset-cpus cpuset-mems pids-limit ulimit oom-score-adj oom-kill-disable blkio-weight blkio-weight-device " +
		"device-read-bps device-write-bps device-read-iops device-write-iops", false},
	{"Security and devices", "privileged cap-add cap-drop security-opt group-add userns device device-cgroup-rule gpus " +
		"pid ipc uts cgroupns cgroup-parent sysctl", false},
	{"Health", "health-cmd health-interval health-timeout health-retries health-start-period health-start-interval no-healthcheck on-unhealthy", false},
	{"Logs", "log-driver log-opt", false},
}

// buildGroups order the flags of build.
var buildGroups = []flagGroup{
	{"Common", "tag file build-arg target platform output push pull no-cache why check debug-shell progress quiet", true},
	{"What goes in", "build-context secret ssh label no-cache-filter cache-from reproducible", false},
	{"What comes out", "iidfile metadata-file cache-to load", false},
	{"Steps", "network add-host allow memory memory-swap shm-size cpus cpu-shares cpu-period cpu-quota cpuset-cpus cpuset-mems " +
		"cgroup-parent ulimit", false},
}

// painter writes help with or without colours.
type painter struct {
	w      io.Writer
	colour bool
	width  int
}

func (p *painter) heading(text string) {
	if p.colour {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	fmt.Fprintln(p.w, text)
}

func (a *app) painter() *painter {
	p := &painter{w: a.out, width: 100}
	if t := terminalOf(a.out); t != nil {
		p.colour = terminal.Colours(t)
		if _, columns, ok := terminal.Size(t); ok {
			p.width = max(60, min(int(columns), 110))
		}
	}
	return p
}

// help prints the help of a command.
func (a *app) help(cmd *cobra.Command, _ []string) {
	p := a.painter()
	switch {
	case !cmd.HasParent():
		a.rootHelp(p, cmd)
	case cmd.HasAvailableSubCommands() && len(flagsOf(cmd.NonInheritedFlags())) == 0:
		fmt.Fprintf(p.w, "%s.\n\n", cmd.Short)
		p.heading("Usage")
		fmt.Fprintf(p.w, "  %s\n\n", cmd.UseLine())
		p.heading("Commands")
		p.commandList(cmd.Commands())
	default:
		a.commandHelp(p, cmd)
	}
}

func (a *app) rootHelp(p *painter, root *cobra.Command) {
	fmt.Fprint(p.w, "Berth runs containers.\n\n")
	p.heading("Usage")
	fmt.Fprint(p.w, "  berth [-H ENGINE] COMMAND ...\n")
	for _, heading := range groupOrder {
		var list []*cobra.Command
		for name := range strings.FieldsSeq(topLevel + topGroups) {
			for _, built := range root.Commands() {
				if built.Name() == name && built.Annotations["group"] == heading {
					list = append(list, built)
				}
			}
		}
		if heading == groupSystem {
			for _, built := range root.Commands() {
				if built.Name() == "completion" {
					list = append(list, built)
				}
			}
		}
		fmt.Fprintln(p.w)
		p.heading(heading)
		p.commandList(list)
	}
	fmt.Fprintln(p.w)
	p.heading("Flags")
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, name := range []string{"host", "no-start", "version"} {
		fs.AddFlag(root.Flag(name))
	}
	if a.allFlags(root) {
		for _, name := range []string{"tls", "tlsverify", "tlscacert", "tlscert", "tlskey"} {
			fs.AddFlag(root.Flag(name))
		}
	}
	p.flagList(flagsOf(fs))
	fmt.Fprint(p.w, "\nTry it:  berth run --rm -it alpine\nMore:    berth COMMAND --help\n")
}

func (p *painter) commandList(list []*cobra.Command) {
	for _, c := range list {
		if !c.Hidden {
			fmt.Fprintf(p.w, "  %-11s %s\n", c.Name(), c.Short)
		}
	}
}

func (a *app) commandHelp(p *painter, cmd *cobra.Command) {
	fmt.Fprintf(p.w, "%s.\n\n", cmd.Short)
	p.heading("Usage")
	fmt.Fprintf(p.w, "  %s\n", cmd.UseLine())
	if cmd.Example != "" {
		fmt.Fprintln(p.w)
		p.heading("Examples")
		fmt.Fprintln(p.w, cmd.Example)
	}
	flags := flagsOf(cmd.NonInheritedFlags())
	if len(flags) == 0 {
		return
	}
	if len(flags) < 40 && cmd.Name() != "build" {
		fmt.Fprintln(p.w)
		p.heading("Flags")
		p.flagList(flags)
		return
	}
	hidden := 0
	groups := runGroups
	if cmd.Name() == "build" {
		groups = buildGroups
	}
	for _, group := range groups {
		list := pick(flags, group.names)
		if !group.always && !a.allFlags(cmd) {
			hidden += len(list)
			continue
		}
		fmt.Fprintln(p.w)
		p.heading(group.heading)
		p.flagList(list)
	}
	if hidden > 0 {
		fmt.Fprintf(p.w, "\n%d more flags: %s --help=all\n", hidden, cmd.CommandPath())
	}
}

// flagsOf returns the flags that a person should see.
func flagsOf(fs *pflag.FlagSet) []*pflag.Flag {
	var out []*pflag.Flag
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			out = append(out, f)
		}
	})
	return out
}

func pick(flags []*pflag.Flag, names string) []*pflag.Flag {
	var out []*pflag.Flag
	for name := range strings.FieldsSeq(names) {
		for _, f := range flags {
			if f.Name == name {
				out = append(out, f)
			}
		}
	}
	return out
}

// flagList prints flags in two columns.
func (p *painter) flagList(flags []*pflag.Flag) {
	left := make([]string, len(flags))
	usage := make([]string, len(flags))
	width := 0
	for i, f := range flags {
		name, text := argumentAndUsage(f)
		left[i] = "      --" + f.Name
		if f.Shorthand != "" {
			left[i] = "  -" + f.Shorthand + ", --" + f.Name
		}
		if name != "" && f.Value.Type() != "bool" {
			left[i] += " " + argumentName(name)
		}
		usage[i] = text
		if n := utf8.RuneCountInString(left[i]); n < 34 {
			width = max(width, n)
		}
	}
	for i := range flags {
		fmt.Fprint(p.w, left[i])
		n := utf8.RuneCountInString(left[i])
		if n > width {
			fmt.Fprint(p.w, "\n")
			n = 0
		}
		p.wrapped(usage[i], width+2, n)
	}
}

// argumentAndUsage returns what a flag's argument is called and what the flag is
// for. A usage that begins with the argument in back quotes does not repeat it.
func argumentAndUsage(f *pflag.Flag) (name, text string) {
	name, text = pflag.UnquoteUsage(f)
	if strings.HasPrefix(f.Usage, "`"+name+"` ") {
		text = strings.TrimPrefix(text, name+" ")
	}
	return name, text
}

// wrapped prints text from a column on, given how much of the line is used.
func (p *painter) wrapped(text string, column, used int) {
	fmt.Fprint(p.w, strings.Repeat(" ", column-used))
	at := column
	for i, word := range strings.Fields(text) {
		if i > 0 && at+1+len(word) > p.width {
			fmt.Fprint(p.w, "\n"+strings.Repeat(" ", column))
			at = column
		} else if i > 0 {
			fmt.Fprint(p.w, " ")
			at++
		}
		fmt.Fprint(p.w, word)
		at += len(word)
	}
	fmt.Fprintln(p.w)
}

// argumentName makes pflag's names of types readable.
func argumentName(name string) string {
	switch name {
	case "stringArray", "string":
		return "TEXT"
	case "int", "int64", "uint16":
		return "N"
	case "duration":
		return "TIME"
	}
	return name
}

// helpCommand is `berth help COMMAND`.
func (a *app) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Hidden: true, RunE: func(_ *cobra.Command, args []string) error {
		for _, c := range root.Commands() {
			if len(args) > 0 && (c.Name() == args[0] || c.HasAlias(args[0])) {
				a.help(c, nil)
				return nil
			}
		}
		if len(args) > 0 {
			return unknownCommand(args[0])
		}
		a.help(root, nil)
		return nil
	}}
}
