package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/internal/engine"
	"berth/internal/fault"
	"berth/internal/version"

	"github.com/spf13/pflag"
)

// dockerdName is the name under which this program takes dockerd's options.
const dockerdName = "dockerd"

// dockerd is this program behind dockerd's command line: for tools and tests that
// start an engine of their own. What it cannot honour it says at start, one line
// each.
type dockerd struct {
	flags settings // of the command line alone
	now   settings
	level slog.LevelVar
	log   *slog.Logger

	mu    sync.Mutex // guards live: what SIGHUP changes
	live  bool       // containers go on when this program ends
	grace time.Duration
}

// runDockerd is dockerd from its arguments to its end.
func runDockerd(args []string, out io.Writer) error {
	set := dockerdFlagSet()
	if err := set.Parse(args); err != nil {
		return fault.New(fault.Invalid, "", "", "%w", err).WithHint("see dockerd --help")
	}
	if help, _ := set.GetBool("help"); help {
		fmt.Fprintf(out, "Usage: dockerd [OPTIONS]\n\nBerth's engine behind the options of dockerd.\n\nOptions:\n%s", set.FlagUsages())
		return pflag.ErrHelp
	}
	if set.NArg() > 0 {
		return fault.New(fault.Invalid, "", "", "\"dockerd\" accepts no arguments").WithHint("see dockerd --help")
	}
	if on, _ := set.GetBool("version"); on {
		fmt.Fprintf(out, "Docker version %s, build %s (Berth)\n", version.String(), revision())
		return nil
	}
	d := &dockerd{flags: valuesOf(set)}
	var err error
	if d.now, err = readDaemonJSON(d.flags); err != nil {
		return err
	}
	o, err := d.options(d.now)
	if err != nil {
		return err
	}
	if d.now.on("validate") {
		fmt.Fprintln(os.Stderr, "configuration OK")
		return nil
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "", "", "dockerd needs to be started with root privileges")
	}
	d.log = newLogger(d.now.text("log-format"), &d.level)
	for _, line := range notices(d.now) {
		d.log.Warn(line)
	}
	if err := claimPidfile(o.pidfile); err != nil {
		return err
	}
	if err := setProxies(d.now); err != nil {
		return err
	}
	return o.serve(d.log)
}

// hooksOf are what dockerd does where berthd does nothing.
func (d *dockerd) hooksOf() hooks {
	return hooks{ready: d.ready, reload: d.reload, end: d.end}
}

// ready says in the log what tools wait for.
func (d *dockerd) ready(ls []*listener) {
	d.log.Info("Daemon has completed initialization")
	for _, l := range ls {
		address := l.String()
		d.log.Info("API listen on " + strings.TrimPrefix(strings.TrimPrefix(address, "unix://"), "tcp://"))
	}
}

// end stops the containers unless they are to go on, as dockerd does.
func (d *dockerd) end(e *engine.Engine) {
	d.mu.Lock()
	live, grace := d.live, d.grace
	d.mu.Unlock()
	if live {
		return
	}
	d.log.Info("stopping the containers, since --live-restore is not set", "within", grace)
	e.StopAll(context.Background(), grace)
}

// reload reads daemon.json again and changes what dockerd changes while it runs.
// Everything else stays as it was, and is named.
func (d *dockerd) reload(e *engine.Engine) error {
	d.log.Info("Got signal to reload configuration, reloading from: " + orDefaultText(d.flags.text("config-file"), defaultDaemonJSON))
	next, err := readDaemonJSON(d.flags)
	if err != nil {
		return err
	}
	o, err := (&dockerd{flags: d.flags}).options(next)
	if err != nil {
		return err
	}
	r := o.images
	if err := e.Reconfigure(o.live()); err != nil {
		return err
	}
	d.level.Set(o.level)
	for _, name := range restartNeeded(d.now, next) {
		d.log.Warn("changed in the configuration; it takes effect with the next start", "option", name)
	}
	d.mu.Lock()
	d.live, d.grace = next.on("live-restore"), shutdownGrace(next)
	d.mu.Unlock()
	d.log.Info("Reloaded configuration", "labels", o.labels, "debug", o.level <= slog.LevelDebug, "registry-mirrors", r.mirrors,
		"insecure-registries", r.insecure, "live-restore", next.on("live-restore"))
	return nil
}

// reloadable are the options that take effect on SIGHUP.
var reloadable = map[string]bool{
	"debug": true, "log-level": true, "label": true, "registry-mirror": true, "insecure-registry": true, "max-concurrent-downloads": true,
	"max-concurrent-uploads": true, "live-restore": true, "shutdown-timeout": true, "default-shm-size": true, "storage-opt": true, "default-ulimit": true,
	"default-runtime": true, "default-cgroupns-mode": true, "default-ipc-mode": true, "dns": true, "dns-opt": true, "dns-search": true,
	"init": true, "ip": true, "log-driver": true, "log-opt": true, "no-new-privileges": true, "seccomp-profile": true, "cgroup-parent": true,
}

// restartNeeded lists options that differ and do not change while an engine runs.
func restartNeeded(before, next settings) (names []string) {
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		if !reloadable[f.name] && f.ignored == nil && strings.Join(before[f.name], "\x00") != strings.Join(next[f.name], "\x00") {
			names = append(names, f.fileKey())
		}
	}
	for key, why := range fileOnly {
		if why == "" && !slices.Equal(before[key], next[key]) {
			names = append(names, key)
		}
	}
	return names
}

// shutdownGrace is how long containers have to stop.
func shutdownGrace(s settings) time.Duration {
	n := 15
	if s.has("shutdown-timeout") {
		n, _ = strconv.Atoi(s.text("shutdown-timeout"))
	}
	if n < 0 {
		return 365 * 24 * time.Hour
	}
	return time.Duration(n) * time.Second
}

// claimPidfile refuses to run beside a dockerd that wrote the same file.
func claimPidfile(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid <= 0 || pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	comm, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	switch strings.TrimSpace(string(comm)) {
	case dockerdName, "berthd":
		return fault.New(fault.Conflict, "", "", "process with PID %d is still running", pid).
			WithHint("stop it, or name another file with --pidfile (%s)", path)
	}
	return nil // the number is somebody else's by now
}

// setProxies has the process reach registries as the options say.
func setProxies(s settings) error {
	for name, env := range map[string]string{"http-proxy": "HTTP_PROXY", "https-proxy": "HTTPS_PROXY", "no-proxy": "NO_PROXY"} {
		if s.has(name) {
			if err := errors.Join(os.Setenv(env, s.text(name)), os.Setenv(strings.ToLower(env), s.text(name))); err != nil {
				return err
			}
		}
	}
	return nil
}

func orDefaultText(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}
