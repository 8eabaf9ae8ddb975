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
	aliases string // space-separated
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
	case groups[name] != nil:
		root.AddCommand(a.groupCommand(name, rest))
	default:
		c := find(name)
		if c == nil {
			return nil, unknownCommand(name)
		}
		root.AddCommand(a.command(c, name))
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

func find(name string) *command {
	for i := range commands {
		c := &commands[i]
		if c.name == name {
			return c
		}
		for alias := range strings.FieldsSeq(c.aliases) {
			if alias == name {
				return c
			}
		}
	}
	return nil
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
	for i := range commands {
		root.AddCommand(a.command(&commands[i], commands[i].name))
	}
	for _, name := range []string{"container", "image", "system"} {
		root.AddCommand(a.groupCommand(name, nil))
	}
}

// groups are docker's names of the same commands in two words.
var groups = map[string]map[string]string{
	"container": {"attach": "attach", "create": "create", "exec": "exec", "inspect": "inspect", "kill": "kill",
		"logs": "logs", "ls": "ps", "list": "ps", "ps": "ps", "restart": "restart", "rm": "rm", "remove": "rm",
		"run": "run", "start": "start", "stop": "stop", "wait": "wait"},
	"image": {"import": "import", "inspect": "inspect", "load": "load", "ls": "images", "list": "images",
		"pull": "pull", "rm": "rmi", "remove": "rmi", "tag": "tag"},
	"system": {"info": "info", "dial-stdio": "dial-stdio"},
}

// groupCommand builds a group with the one command that rest names, or with all.
func (a *app) groupCommand(group string, rest []string) *cobra.Command {
	cmd := &cobra.Command{Use: group + " COMMAND", Short: "Commands for " + group + "s, in docker's two words", Hidden: true,
		Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(group + " " + args[0])
		}
		a.help(cmd, nil)
		return nil
	}
	wanted, _ := commandName(rest)
	for name, target := range groups[group] {
		if _, known := groups[group][wanted]; known && name != wanted {
			continue
		}
		child := a.command(find(target), name)
		if target == "inspect" {
			_ = child.Flags().Set("type", group)
		}
		cmd.AddCommand(child)
	}
	addHelpFlag(cmd, "h")
	return cmd
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
