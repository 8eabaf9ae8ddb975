package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth/internal/engine"
	"berth/internal/fault"
	"berth/internal/network"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// The places an engine has when nothing else is said.
const (
	defaultRoot   = "/var/lib/berth"
	defaultRun    = "/run/berth"
	defaultConfig = "/etc/berth/berthd.json"
	dockerSocket  = "/var/run/docker.sock"
)

// options are the command line and the configuration file together.
type options struct {
	root, run, config, pidfile string
	hosts                      []string
	inherited                  []inheritedSocket
	dockerSocket               bool
	group                      string
	tls, tlsGiven, tlsVerify   bool
	tlsCA, tlsCert, tlsKey     string
	runtimeBinary              string
	addRuntimes                []string
	runtimes                   map[string]string
	labels                     []string
	logMaxSizeText             string
	logMaxSize                 int64
	logMaxFiles                int
	buildKeepText              string
	buildKeep                  int64
	diskBudgetText             string
	diskBudget                 int64
	diskBudgetFresh            time.Duration
	bridge                     string
	subnets                    []string
	subnet4, subnet6           netip.Prefix
	poolSize                   int
	images                     imageOptions
	metrics                    string // HOST:PORT, or nothing
	logLevel, logFormat        string
	level                      slog.Level
	debug, showVersion         bool
	flags                      *pflag.FlagSet // as the command line and the file set them

	// What only the front for dockerd's flags sets.
	defaults *engine.ContainerDefaults
	bridged  network.Config // but for what there are flags for
	hooks    hooks
}

// section is one group of flags in the help text.
type section struct {
	title string
	flags *pflag.FlagSet
}

// sections declares all flags. Their names are the keys of the configuration
// file, too.
func (o *options) sections() []section {
	group := func(title string, declare func(f *pflag.FlagSet)) section {
		f := pflag.NewFlagSet(title, pflag.ContinueOnError)
		f.SortFlags = false
		declare(f)
		return section{title, f}
	}
	return []section{
		group("Places", func(f *pflag.FlagSet) {
			f.StringVar(&o.root, "root", defaultRoot, "keep images, containers and volumes below `DIR`")
			f.StringVar(&o.run, "run", defaultRun, "keep the run state, which dies with a reboot, below `DIR`")
			f.StringVar(&o.config, "config", "", "read JSON with the same keys as these flags from `FILE`\n(default \""+defaultConfig+"\" if it exists and neither --root nor --run is given)")
			f.StringVar(&o.diskBudgetText, "disk-budget", "", "remove images and build cache that nothing uses, the least recently used first,\nbefore DIR of --root takes `SIZE`, such as 20GB (default: never)")
			f.DurationVar(&o.diskBudgetFresh, "disk-budget-fresh", 10*time.Minute, "keep what was used within `TIME` in any case")
			f.StringVar(&o.pidfile, "pidfile", "", "write the process id to `FILE` (default \"RUN/berthd.pid\")")
		}),
		group("API", func(f *pflag.FlagSet) {
			f.StringArrayVarP(&o.hosts, "host", "H", nil, "serve on `ADDRESS`, unix://PATH, tcp://HOST:PORT or fd://; may be repeated\n(default \"unix://RUN/berth.sock\")")
			f.BoolVar(&o.dockerSocket, "docker-socket", false, "serve on "+dockerSocket+", too")
			f.StringVar(&o.group, "group", "berth", "let `GROUP` use the unix sockets; the default one need not exist")
			f.BoolVar(&o.tls, "tls", false, "use TLS on tcp addresses; --tls=false allows others than loopback without it")
			f.BoolVar(&o.tlsVerify, "tlsverify", false, "use TLS and demand a certificate of clients")
			f.StringVar(&o.tlsCA, "tlscacert", "", "trust the clients whose certificates are signed by one in `FILE`")
			f.StringVar(&o.tlsCert, "tlscert", "", "show the certificate in `FILE` to clients")
			f.StringVar(&o.tlsKey, "tlskey", "", "use the key in `FILE`")
		}),
		group("Containers", func(f *pflag.FlagSet) {
			f.StringVar(&o.runtimeBinary, "runtime-binary", "", "run the program `FILE` as berth-runtime (default: the one beside berthd, then in PATH)")
			f.StringArrayVar(&o.addRuntimes, "add-runtime", nil, "offer a further OCI runtime as `NAME=PATH`; may be repeated")
			f.StringArrayVar(&o.labels, "label", nil, "show `KEY=VALUE` in info; may be repeated")
			f.StringVar(&o.logMaxSizeText, "log-max-size", "10m", "start a new log file of a container at `SIZE`")
			f.IntVar(&o.logMaxFiles, "log-max-files", 3, "keep `NUMBER` log files of a container")
			f.StringVar(&o.buildKeepText, "build-cache-keep", "", "let the cache of builds have `SIZE` after a build, such as 20g; the least recently used goes first\n(default: no limit)")
		}),
		group("Images and registries", o.images.declare),
		group("Network", func(f *pflag.FlagSet) {
			f.StringVar(&o.bridge, "bridge", "", "call the default bridge `NAME` (default \"berth0\"; another --run directory gets another name)")
			f.StringArrayVar(&o.subnets, "subnet", nil, "give the default bridge the addresses `CIDR`, once for IPv4 and once for IPv6\n(default: ones that no route uses)")
			f.IntVar(&o.poolSize, "pool-size", 0, "keep `NUMBER` network namespaces ready; 0 means 8, -1 none")
		}),
		group("Diagnosis", func(f *pflag.FlagSet) {
			f.StringVar(&o.logLevel, "log-level", "info", "log on stderr from `LEVEL` on: debug, info, warn or error")
			f.StringVar(&o.logFormat, "log-format", "text", "log in the `FORM` text, or json: an object a line")
			f.BoolVarP(&o.debug, "debug", "D", false, "same as --log-level debug")
			f.StringVar(&o.metrics, "metrics-address", "", "serve /metrics for Prometheus, and nothing else, on `HOST:PORT`, too\n(default: beside the API only)")
			f.BoolVarP(&o.showVersion, "version", "v", false, "print the version and exit")
			f.BoolP("help", "h", false, "print this help and exit")
		}),
	}
}

// parseOptions reads flags and configuration file, flags first. Help goes to
// out and is reported as pflag.ErrHelp.
func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{}
	sections := o.sections()
	all := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	all.SetOutput(io.Discard)
	all.Usage = func() {}
	for _, s := range sections {
		all.AddFlagSet(s.flags)
	}
	if err := all.Parse(args); err != nil {
		return nil, fault.New(fault.Invalid, "", "", "%w", err).WithHint("see berthd --help")
	}
	if help, _ := all.GetBool("help"); help {
		printHelp(out, sections)
		return nil, pflag.ErrHelp
	}
	if all.NArg() > 0 {
		return nil, fault.New(fault.Invalid, "", "", "unexpected argument %q", all.Arg(0)).WithHint("berthd takes flags only, see berthd --help")
	}
	if o.showVersion {
		return o, nil
	}
	if err := o.readConfig(all); err != nil {
		return nil, err
	}
	o.tlsGiven = all.Changed("tls")
	o.flags = all
	return o, o.complete(all)
}

func printHelp(out io.Writer, sections []section) {
	fmt.Fprint(out, "berthd runs containers and serves the Docker Engine API.\n\nUsage: berthd [FLAGS]\n")
	for _, s := range sections {
		fmt.Fprintf(out, "\n%s\n%s", s.title, s.flags.FlagUsages())
	}
	fmt.Fprint(out, "\nOn SIGTERM and SIGINT the engine ends and containers go on; the next one takes them over.\n"+
		"On SIGHUP it reads the files of --config, --registries and --policy again.\n")
}

// complete checks the options and fills in what depends on others.
func (o *options) complete(all *pflag.FlagSet) error {
	for _, dir := range []*string{&o.root, &o.run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if o.pidfile == "" {
		o.pidfile = filepath.Join(o.run, "berthd.pid")
	}
	if len(o.hosts) == 0 {
		o.hosts = []string{"unix://" + filepath.Join(o.run, "berth.sock")}
	}
	if o.dockerSocket {
		o.hosts = append(o.hosts, "unix://"+dockerSocket)
	}
	if !all.Changed("group") {
		o.group = "?" + o.group // not an error if it does not exist
	}
	if o.debug {
		o.logLevel = "debug"
	}
	if err := o.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fault.New(fault.Invalid, "", "", "--log-level %q is none of debug, info, warn, error", o.logLevel)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return fault.New(fault.Invalid, "", "", "--log-format %q is neither text nor json", o.logFormat)
	}
	var err error
	if o.logMaxSize, err = units.RAMInBytes(o.logMaxSizeText); err != nil || o.logMaxSize <= 0 {
		return fault.New(fault.Invalid, "", "", "--log-max-size %q is not a size such as 10m", o.logMaxSizeText)
	}
	if o.buildKeepText != "" {
		if o.buildKeep, err = units.RAMInBytes(o.buildKeepText); err != nil || o.buildKeep <= 0 {
			return fault.New(fault.Invalid, "", "", "--build-cache-keep %q is not a size such as 20g", o.buildKeepText)
		}
	}
	if o.diskBudgetText != "" {
		if o.diskBudget, err = units.FromHumanSize(o.diskBudgetText); err != nil || o.diskBudget <= 0 {
			return fault.New(fault.Invalid, "", "", "--disk-budget %q is not a size such as 20GB", o.diskBudgetText)
		}
	}
	if o.diskBudgetFresh <= 0 {
		return fault.New(fault.Invalid, "", "", "--disk-budget-fresh must be more than nothing")
	}
	if o.logMaxFiles < 1 {
		return fault.New(fault.Invalid, "", "", "--log-max-files must be at least 1")
	}
	if o.subnet4, o.subnet6, err = prefixes(o.subnets); err != nil {
		return err
	}
	if err = o.images.complete(); err != nil {
		return err
	}
	o.runtimes, err = runtimePaths(o.addRuntimes)
	return err
}

// runtimePaths reads NAME=PATH pairs and checks that the programs exist.
func runtimePaths(pairs []string) (map[string]string, error) {
	out := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, path, ok := strings.Cut(pair, "=")
		if !ok || name == "" || path == "" {
			return nil, fault.New(fault.Invalid, "", "", "--add-runtime %q is not NAME=PATH", pair)
		}
		if out[name] != "" {
			return nil, fault.New(fault.Invalid, "", "", "--add-runtime names %q twice", name)
		}
		found, err := exec.LookPath(path)
		if err != nil {
			return nil, fault.New(fault.Invalid, "", "", "--add-runtime %s: %w", name, err)
		}
		if out[name], err = filepath.Abs(found); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// prefixes sorts the subnets of the bridge by family; a missing one is chosen by
// the engine.
func prefixes(subnets []string) (v4, v6 netip.Prefix, err error) {
	for _, text := range subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return v4, v6, fault.New(fault.Invalid, "", "", "--subnet %q is not a network such as 172.30.0.0/16", text)
		}
		family := &v4
		if p.Addr().Is6() {
			family = &v6
		}
		if family.IsValid() {
			return v4, v6, fault.New(fault.Invalid, "", "", "--subnet: %s and %s are of the same family", family, p)
		}
		*family = p.Masked()
	}
	return v4, v6, nil
}

// beside finds a program in this one's directory, else in PATH.
func beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(found)
}
