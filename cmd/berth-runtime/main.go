// Command berth-runtime is Berth's OCI runtime with runc's command line, so that
// whatever drives runc (podman, containerd, CRI-O) can drive it instead. Its
// subcommand monitor is the parent of all containers of an engine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"

	"berth/internal/monitor"
	"berth/internal/runtime"
	"berth/internal/sysmon"
	"berth/internal/version"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultRoot is where container states are kept unless --root says otherwise.
const defaultRoot = "/run/berth-runtime"

// global holds the options before the subcommand.
type global struct {
	root          string
	log           string
	logFormat     string
	debug         bool
	systemdCgroup bool
	rootless      string
}

// subcommand is one verb. setup registers its flags and returns what to do with
// the remaining arguments; the number it returns is the exit code.
type subcommand struct {
	synopsis string // arguments after the flags
	about    string
	setup    func(*global, *flag.FlagSet) func(args []string) (int, error)
}

var subcommands = map[string]subcommand{
	"create":   {"ID", "create a container; its process waits for start", setupCreate},
	"start":    {"ID", "execute the program of a created container", setupStart},
	"run":      {"ID", "create and start a container", setupRun},
	"exec":     {"ID COMMAND [ARG...]", "run a further process in a container", setupExec},
	"state":    {"ID", "print the state of a container as JSON", setupState},
	"list":     {"", "list containers", setupList},
	"ps":       {"ID [PS-OPTION...]", "list the processes of a container", setupPs},
	"kill":     {"ID [SIGNAL]", "send a signal (default TERM) to a container", setupKill},
	"delete":   {"ID", "remove a stopped container", setupDelete},
	"pause":    {"ID", "freeze all processes of a container", setupPause},
	"resume":   {"ID", "thaw a paused container", setupResume},
	"update":   {"ID", "change the resource limits of a container", setupUpdate},
	"events":   {"ID", "print counters and out-of-memory events as JSON", setupEvents},
	"spec":     {"", "write a config.json to start from", setupSpec},
	"features": {"", "print what this runtime supports as JSON", setupFeatures},
}

func main() {
	sysmon.Calm()
	if len(os.Args) > 1 && os.Args[1] == "monitor" {
		os.Exit(monitor.Main(os.Args[2:]))
	}
	// The descriptors of standard streams must be taken, or files opened later
	// would be passed to a container as such.
	for fd := range 3 {
		var stat syscall.Stat_t
		if syscall.Fstat(fd, &stat) == syscall.EBADF {
			_, _ = syscall.Open(os.DevNull, syscall.O_RDWR, 0)
		}
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	g := &global{}
	fs := newFlags("berth-runtime")
	fs.StringVar(&g.root, "root", defaultRoot, "directory of container states")
	fs.StringVar(&g.log, "log", "", "file to append errors to")
	fs.StringVar(&g.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&g.debug, "debug", false, "log more")
	fs.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "let systemd make cgroups (slice:prefix:name)")
	fs.StringVar(&g.rootless, "rootless", "auto", "true, false or auto: ignore missing rights on cgroups")
	fs.String("criu", "", "accepted and unused: checkpoints are not offered")
	showVersion := fs.Bool("version", false, "print the version")
	fs.BoolVar(showVersion, "v", false, "print the version")
	if err := fs.Parse(args); err != nil {
		return usageError(fs, err, func(w io.Writer) { usage(w, fs) })
	}
	if *showVersion {
		fmt.Printf("berth-runtime version %s\nspec: %s\n", version.String(), specs.Version)
		return 0
	}
	if fs.NArg() == 0 || fs.Arg(0) == "help" {
		usage(os.Stdout, fs)
		return 0
	}
	if g.logFormat != "text" && g.logFormat != "json" {
		return g.fail(fmt.Errorf("--log-format is %q: text and json are known", g.logFormat))
	}
	name := fs.Arg(0)
	cmd, ok := subcommands[name]
	switch {
	case name == "checkpoint" || name == "restore":
		return g.fail(fmt.Errorf("%s is not offered: this runtime makes no checkpoints", name))
	case !ok:
		return g.fail(fmt.Errorf("no command %q; berth-runtime --help lists them", name))
	}
	return g.dispatch(name, cmd, fs.Args()[1:])
}

func (g *global) dispatch(name string, cmd subcommand, args []string) int {
	fs := newFlags(name)
	act := cmd.setup(g, fs)
	if err := fs.Parse(args); err != nil {
		return usageError(fs, err, func(w io.Writer) {
			fmt.Fprintf(w, "usage: berth-runtime %s\n\n%s.\n\n", strings.Join(strings.Fields(name+" [OPTION...] "+cmd.synopsis), " "), cmd.about)
			printFlags(w, fs)
		})
	}
	rest := fs.Args()
	if strings.HasPrefix(cmd.synopsis, "ID") && (len(rest) == 0 || rest[0] == "") {
		return g.fail(fmt.Errorf("%s: the container's id is missing", name))
	}
	if (cmd.synopsis == "ID" && len(rest) > 1) || (cmd.synopsis == "" && len(rest) > 0) {
		return g.fail(fmt.Errorf("%s: unexpected argument %q", name, rest[len(rest)-1]))
	}
	code, err := act(rest)
	if err != nil {
		failed := g.fail(err)
		if code == 0 {
			code = failed
		}
	}
	return code
}

// newFlags returns a flag set that reports errors instead of printing them. As
// with runc, one dash and two mean the same, and flags end at the first
// argument that is none.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func usageError(fs *flag.FlagSet, err error, help func(io.Writer)) int {
	if errors.Is(err, flag.ErrHelp) {
		help(os.Stdout)
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n\n", fs.Name(), err)
	help(os.Stderr)
	return 1
}

func usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprint(w, "berth-runtime runs containers as the Open Container Initiative specifies them.\n\nusage: berth-runtime [OPTION...] COMMAND [ARG...]\n\ncommands:\n")
	names := make([]string, 0, len(subcommands))
	for name := range subcommands {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(w, "  %-9s %s\n", name, subcommands[name].about)
	}
	fmt.Fprint(w, "\noptions:\n")
	printFlags(w, fs)
}

func printFlags(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = " -"
		}
		fmt.Fprintf(w, "  %s%-20s %s\n", dashes, f.Name, f.Usage)
	})
}

// forwarded are the signals that a foreground container gets from us. Taking
// over all sixty would cost milliseconds: the Go runtime hands each of them to
// a thread of its own, one by one.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
}

// forwardSignals passes signals on to the container's process for the rest of
// this process's life.
func forwardSignals(p *runtime.Process) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded...)
	go func() {
		for s := range signals {
			_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), s.(syscall.Signal), nil, 0)
		}
	}()
}

// executableCode is what a shell would return for a program that cannot be
// executed, and 1 for every other error.
func executableCode(err error) int {
	var cannot *runtime.ExecError
	if errors.As(err, &cannot) {
		return cannot.Code
	}
	return 1
}
