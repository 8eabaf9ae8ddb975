// Package cli is the command line: one file a command, each turning flags into
// requests of the Engine API and answers into what a person or a script reads.
// It reaches the engine through internal/client alone and so works against any
// compatible engine. Only the command that was asked for is built, because the
// time before the first request is part of what starting a container costs.
package cli

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/terminal"
	"berth/internal/client"
)

// command is one entry of the table of commands.
type command struct {
	name    string
	group   string // heading in the help; "" hides the command
	usage   string // what follows the name
	short   string
	example string
	build   func(*app, *cobra.Command) // adds flags and the function that runs
}

// app is one invocation of the program.
type app struct {
	in       *os.File
	out, err io.Writer
	host     string
	noStart  bool
	tls      tlsFlags
	version  bool
	cached   *client.Client
	// completing is set while a shell asks for completions: nothing may be
	// started or waited for.
	completing bool
}

type tlsFlags struct {
	on, verify    bool
	ca, cert, key string
}

// exit is an error that ends the program with a code of its own. A nil err means
// that everything has been said.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return "exit"
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// Exit codes that docker's users rely on.
const (
	codeFailed    = 1
	codeEngine    = 125 // the engine or the command line refused
	codeCannotRun = 126 // the program in the container cannot be executed
	codeNotFound  = 127 // the program in the container does not exist
)

// Main runs the command line args[1:] and returns the program's exit code.
func Main(args []string) int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	return a.main(args[1:])
}

func (a *app) main(args []string) int {
	root, err := a.tree(args)
	if err == nil {
		root.SetArgs(args)
		err = root.Execute()
	}
	if err == nil {
		return 0
	}
	var e *exit
	if !errors.As(err, &e) {
		e = &exit{codeFailed, err}
	}
	if e.err != nil {
		a.complain(e.err)
	}
	return e.code
}

// tree builds as much of the tree of commands as args need: one command, or all
// of them when the help or the shell's completion asks.
func (a *app) tree(args []string) (*cobra.Command, error) {
	root := &cobra.Command{
		Use: "berth", Short: "Run containers.", SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              a.runRoot,
		Args:              cobra.ArbitraryArgs,
		TraverseChildren:  true, // a flag before the command is never the command's
	}
	a.globalFlags(root)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpFunc(a.help)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(&cobra.Command{Use: "no-help-command", Hidden: true})
	name, rest := commandName(args)
	switch {
	case name == cobra.ShellCompRequestCmd || name == cobra.ShellCompNoDescRequestCmd || name == "completion":
		a.completing = name != "completion"
		a.addAll(root)
		root.AddCommand(a.completionCommand())
	case name == "" && wantsVersion(args):
	case name == "" || name == "help":
		a.addAll(root)
		root.AddCommand(a.completionCommand())
		if name == "help" {
			root.AddCommand(a.helpCommand(root))
		}
	default:
		if c := lookUp(name); c != nil {
			root.AddCommand(a.command(c, name))
		} else if g := groupNamed(name); g != nil {
			root.AddCommand(a.groupCommand(g, rest))
		} else {
			return nil, unknownCommand(name)
		}
	}
	return root, nil
}

func (a *app) globalFlags(root *cobra.Command) {
	fs := root.PersistentFlags()
	fs.StringVarP(&a.host, "host", "H", "", "`ENGINE` talk to unix://PATH, tcp://HOST:PORT or ssh://HOST")
	fs.BoolVar(&a.noStart, "no-start", false, "do not start an engine when none runs")
	fs.BoolVar(&a.tls.on, "tls", false, "use TLS without checking the engine's certificate")
	fs.BoolVar(&a.tls.verify, "tlsverify", false, "use TLS and check the engine's certificate")
	fs.StringVar(&a.tls.ca, "tlscacert", "", "`FILE` trust certificates signed by this one")
	fs.StringVar(&a.tls.cert, "tlscert", "", "`FILE` present this certificate")
	fs.StringVar(&a.tls.key, "tlskey", "", "`FILE` key of that certificate")
	root.Flags().BoolVarP(&a.version, "version", "v", false, "print the version")
	addHelpFlag(root, "h")
}

// runRoot is berth without a command.
func (a *app) runRoot(root *cobra.Command, _ []string) error {
	if a.version {
		return a.printShortVersion()
	}
	a.help(root, nil)
	return nil
}

// valueFlags are the global flags that take their value from the next argument.
var valueFlags = " -H --host --tlscacert --tlscert --tlskey "

// commandName returns the first argument that is a command, and what follows.
func commandName(args []string) (name string, rest []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--help" || args[i] == "-h":
			return "", nil
		case !strings.HasPrefix(args[i], "-"):
			return args[i], args[i+1:]
		case strings.Contains(valueFlags, " "+args[i]+" "):
			i++
		}
	}
	return "", nil
}

func wantsVersion(args []string) bool {
	return slices.Contains(args, "-v") || slices.Contains(args, "--version")
}

// command builds one command under the name by which it was called.
func (a *app) command(c *command, name string) *cobra.Command {
	cmd := &cobra.Command{Use: strings.TrimSpace(name + " " + c.usage), Short: c.short, Example: c.example,
		DisableFlagsInUseLine: true, Hidden: c.group == ""}
	if c.group != "" {
		cmd.Annotations = map[string]string{"group": c.group}
	}
	c.build(a, cmd)
	shorthand := "h"
	if cmd.Flags().ShorthandLookup("h") != nil {
		shorthand = ""
	}
	addHelpFlag(cmd, shorthand)
	return cmd
}

func (a *app) addAll(root *cobra.Command) {
	for name := range strings.FieldsSeq(topLevel) {
		root.AddCommand(a.command(lookUp(name), name))
	}
	for name := range strings.FieldsSeq(topGroups) {
		if c := lookUp(name); c != nil {
			root.AddCommand(a.command(c, name))
		} else {
			root.AddCommand(a.groupCommand(groupNamed(name), nil))
		}
	}
}

// groupCommand builds a group with the one command that rest names, or with all.
func (a *app) groupCommand(g *group, rest []string) *cobra.Command {
	cmd := &cobra.Command{Use: g.name + " COMMAND", Short: g.short, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		Annotations: map[string]string{"group": groupGroups}}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownMember(g, args[0])
		}
		a.help(cmd, nil)
		return nil
	}
	wanted, _ := commandName(rest)
	for member := range strings.FieldsSeq(g.members) {
		names, target := memberOf(member)
		if wanted != "" && !slices.Contains(names, wanted) && g.has(wanted) {
			continue
		}
		cmd.AddCommand(a.memberCommand(g, names, target))
	}
	addHelpFlag(cmd, "h")
	return cmd
}

// memberCommand builds a command of a group: its own, or one that also exists
// without the group.
func (a *app) memberCommand(g *group, names []string, target string) *cobra.Command {
	c := lookUp(g.name + " " + names[0])
	if c == nil {
		c = lookUp(target)
	}
	child := a.command(c, names[0])
	child.Aliases = names[1:]
	if target == "inspect" && child.Flags().Lookup("type") != nil {
		_ = child.Flags().Set("type", g.name)
		_ = child.Flags().MarkHidden("type")
		if g.name != "image" {
			_ = child.Flags().MarkHidden("platform")
		}
		child.Short = "Show everything about " + g.name + "s"
		child.Example = ""
	}
	return child
}

// engine returns the client, made on first use.
func (a *app) engine() (*client.Client, error) {
	if a.cached != nil {
		return a.cached, nil
	}
	o := client.Options{Host: a.host, TLS: a.tlsOptions()}
	if !a.noStart && !a.completing {
		o.Starter = client.StartEngine
	}
	c, err := client.New(o)
	a.cached = c
	return c, err
}

func (a *app) tlsOptions() *client.TLSOptions {
	t := a.tls
	if !t.on && !t.verify && t.ca == "" && t.cert == "" && t.key == "" {
		return client.TLSFromEnvironment()
	}
	o := &client.TLSOptions{Verify: t.verify, CA: t.ca, Cert: t.cert, Key: t.key}
	o.FillFrom(client.CertificateDirectory())
	return o
}

// errTerminal returns the terminal of standard error, nil when it is none.
func (a *app) errTerminal() *os.File { return terminalOf(a.err) }

func terminalOf(w io.Writer) *os.File {
	if f, ok := w.(*os.File); ok && terminal.Is(f) {
		return f
	}
	return nil
}
