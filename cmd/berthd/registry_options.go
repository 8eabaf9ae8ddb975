package main

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"berth/internal/fault"
	"berth/internal/registry"

	"github.com/spf13/pflag"
)

// Where a registry of its own listens and lives when nothing else is said.
const (
	registryListen = ":5000"
	registryRoot   = "/var/lib/berth-registry"
)

// registryOptions are the command line of `berthd registry` over its
// configuration file.
type registryOptions struct {
	config  string
	file    *registry.File
	level   slog.Level
	collect bool // the command gc
	dryRun  bool

	flags struct {
		listen, root, cert, key, clientCA, htpasswd, upstream, budget, accessLog, metrics, logLevel string
		readOnly, token, noPage, untagged                                                           bool
		gcInterval, gcGrace                                                                         time.Duration
		origins                                                                                     []string
	}
}

func (o *registryOptions) sections() []section {
	group := func(title string, declare func(f *pflag.FlagSet)) section {
		f := pflag.NewFlagSet(title, pflag.ContinueOnError)
		f.SortFlags = false
		declare(f)
		return section{title, f}
	}
	v := &o.flags
	return []section{
		group("Where it listens and lives:", func(f *pflag.FlagSet) {
			f.StringVar(&v.listen, "listen", registryListen, "serve on `HOST:PORT`")
			f.StringVar(&v.root, "root", registryRoot, "keep everything that is pushed in `DIR`")
			f.StringVar(&o.config, "config", "", "read `FILE` (TOML), where everything can be set; flags win over it")
		}),
		group("Who may use it:", func(f *pflag.FlagSet) {
			f.StringVar(&v.cert, "tls-cert", "", "serve HTTPS with the certificate in `FILE` (PEM); it is read again when it changes")
			f.StringVar(&v.key, "tls-key", "", "the certificate's key is in `FILE`")
			f.StringVar(&v.clientCA, "tls-client-ca", "", "let in clients with a certificate of an authority in `FILE` only")
			f.StringVar(&v.htpasswd, "htpasswd", "", "let in the users in `FILE` (htpasswd -B); without rules they may do everything")
			f.BoolVar(&v.token, "token", false, "let users have short-lived tokens (at /token) in place of sending passwords")
			f.BoolVar(&v.readOnly, "read-only", false, "refuse pushes and deletes")
			f.StringArrayVar(&v.origins, "cors-origin", nil, "let scripts of the web `ORIGIN` use the registry; repeat for several")
		}),
		group("Cache of another registry:", func(f *pflag.FlagSet) {
			f.StringVar(&v.upstream, "cache", "", "be a cache of the registry at `URL`, such as https://registry-1.docker.io")
			f.StringVar(&v.budget, "cache-budget", "", "hold blobs of at most `SIZE` together, such as 50g; the least recently used go first")
		}),
		group("Garbage:", func(f *pflag.FlagSet) {
			f.DurationVar(&v.gcInterval, "gc-interval", 0, "collect every `TIME`, such as 24h; 0 is never")
			f.DurationVar(&v.gcGrace, "gc-grace", time.Hour, "leave alone what was of use within `TIME`")
			f.BoolVar(&v.untagged, "gc-untagged", false, "manifests that no tag leads to are garbage, too")
			f.BoolVar(&o.dryRun, "dry-run", false, "with gc: say what would go, and delete nothing")
		}),
		group("Watching it:", func(f *pflag.FlagSet) {
			f.StringVar(&v.metrics, "metrics", "", "let `WHO` read /metrics: anyone, users or off (default: users if there are any)")
			f.BoolVar(&v.noPage, "no-page", false, "no page at /")
			f.StringVar(&v.accessLog, "access-log", "text", "log requests on standard output in the `FORM` text, json or off")
			f.StringVar(&v.logLevel, "log-level", "info", "log from `LEVEL` on (debug, info, warn, error) on standard error")
			f.BoolP("help", "h", false, "print this help and exit")
		}),
	}
}

// parseRegistry reads the arguments after `berthd registry`. Help goes to out
// and is reported as pflag.ErrHelp.
func parseRegistry(args []string, out io.Writer) (*registryOptions, error) {
	o := &registryOptions{}
	sections := o.sections()
	all := pflag.NewFlagSet("berthd registry", pflag.ContinueOnError)
	all.SetOutput(io.Discard)
	all.Usage = func() {}
	for _, s := range sections {
		all.AddFlagSet(s.flags)
	}
	if err := all.Parse(args); err != nil {
		return nil, fault.New(fault.Invalid, "", "", "%w", err).WithHint("see berthd registry --help")
	}
	if help, _ := all.GetBool("help"); help {
		printRegistryHelp(out, sections)
		return nil, pflag.ErrHelp
	}
	switch words := all.Args(); {
	case slices.Equal(words, []string{"gc"}):
		o.collect = true
	case len(words) > 0 && !slices.Equal(words, []string{"serve"}):
		return nil, fault.New(fault.Invalid, "", "", "unexpected argument %q", words[0]).WithHint("the commands are serve (which may be left out) and gc, see berthd registry --help")
	}
	if o.dryRun && !o.collect {
		return nil, fault.New(fault.Invalid, "", "", "--dry-run goes with the command gc")
	}
	return o, o.complete(all)
}

func printRegistryHelp(out io.Writer, sections []section) {
	fmt.Fprint(out, "berthd registry serves container images to docker, podman, berth and every other OCI client.\n\n"+
		"Usage: berthd registry [FLAGS]       serve\n       berthd registry gc [FLAGS]    collect garbage now, in the running server if there is one\n")
	for _, s := range sections {
		fmt.Fprintf(out, "\n%s\n%s", s.title, s.flags.FlagUsages())
	}
	fmt.Fprint(out, "\nIt may be killed at any instant: what was acknowledged is kept, and unfinished uploads go on.\n")
}

// complete reads the configuration file and lays the flags over it.
func (o *registryOptions) complete(all *pflag.FlagSet) error {
	o.file = &registry.File{}
	if o.config != "" {
		f, err := registry.LoadFile(o.config)
		if err != nil {
			return err
		}
		o.file = f
	}
	v, f := &o.flags, o.file
	for name, set := range map[string]struct{ to, from *string }{
		"listen": {&f.Listen, &v.listen}, "root": {&f.Root, &v.root}, "tls-cert": {&f.TLS.Cert, &v.cert}, "tls-key": {&f.TLS.Key, &v.key},
		"tls-client-ca": {&f.TLS.ClientCA, &v.clientCA}, "htpasswd": {&f.Auth.Htpasswd, &v.htpasswd}, "cache": {&f.Cache.Upstream, &v.upstream},
		"metrics": {&f.Metrics, &v.metrics}, "access-log": {&f.AccessLog, &v.accessLog},
	} {
		if all.Changed(name) || *set.to == "" {
			*set.to = *set.from
		}
	}
	for name, set := range map[string]struct{ to, from *bool }{
		"read-only": {&f.ReadOnly, &v.readOnly}, "token": {&f.Auth.Token.Endpoint, &v.token}, "gc-untagged": {&f.GC.Untagged, &v.untagged},
	} {
		if all.Changed(name) {
			*set.to = *set.from
		}
	}
	if all.Changed("no-page") {
		page := !v.noPage
		f.Page = &page
	}
	if all.Changed("cors-origin") {
		f.Origins = v.origins
	}
	if err := o.setScalars(all); err != nil {
		return err
	}
	abs, err := filepath.Abs(f.Root)
	if err != nil {
		return err
	}
	f.Root = abs
	if !slices.Contains([]string{"text", "json", "off"}, f.AccessLog) {
		return fault.New(fault.Invalid, "", "", "--access-log %q is none of text, json, off", f.AccessLog)
	}
	if err := o.level.UnmarshalText([]byte(v.logLevel)); err != nil {
		return fault.New(fault.Invalid, "", "", "--log-level %q is none of debug, info, warn, error", v.logLevel)
	}
	_, err = f.Config()
	return err
}

// setScalars lays the flags over the file that are no texts there.
func (o *registryOptions) setScalars(all *pflag.FlagSet) error {
	v, f := &o.flags, o.file
	for name, set := range map[string]struct {
		to   interface{ UnmarshalText([]byte) error }
		text string
	}{
		"gc-interval": {&f.GC.Interval, v.gcInterval.String()}, "gc-grace": {&f.GC.Grace, v.gcGrace.String()}, "cache-budget": {&f.Cache.Budget, v.budget},
	} {
		if all.Changed(name) {
			if err := set.to.UnmarshalText([]byte(set.text)); err != nil {
				return fault.New(fault.Invalid, "", "", "--%s: %w", name, err)
			}
		}
	}
	return nil
}
