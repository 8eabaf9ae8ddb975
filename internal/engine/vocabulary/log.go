package vocabulary

import (
	"regexp"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/logs"
	"berth/internal/logs/jsonfile"
	"berth/internal/logs/local"
	"berth/internal/logs/none"
	"berth/internal/logs/syslog"

	api "github.com/moby/moby/api/types/container"
)

// Log drivers on offer.
const (
	LogJSONFile = jsonfile.Name
	LogLocal    = local.Name
	LogNone     = none.Name
	LogSyslog   = syslog.Name
)

// LogDrivers are the names of all.
var LogDrivers = []string{LogJSONFile, LogLocal, LogNone, LogSyslog}

// LogDriver is what a container's log configuration comes to.
type LogDriver struct {
	logs.Options
	// Format is how lines are kept on disk; nil when they are not kept.
	Format logs.Format
	// Readable says that logs may show them.
	Readable bool
	Syslog   *syslog.Options // unless nil, lines are sent there
}

// FindLogDriver reads a log configuration. Its errors name the option, or the
// drivers that there are.
func FindLogDriver(c api.LogConfig) (LogDriver, error) {
	var d LogDriver
	var err error
	switch c.Type {
	case LogJSONFile:
		d.Options, err = jsonfile.Parse(c.Config)
		d.Format, d.Readable = jsonfile.Format{}, true
	case LogLocal:
		d.Options, err = local.Parse(c.Config)
		d.Format, d.Readable = local.Format{}, true
	case LogSyslog:
		var o syslog.Options
		o, err = syslog.Parse(c.Config)
		d = LogDriver{Options: o.Options, Format: local.Format{}, Readable: !o.CacheDisabled, Syslog: &o}
		if d.Tag == "" {
			d.Tag = syslog.DefaultTag
		}
	case LogNone:
		err = none.Parse(c.Config)
	default:
		err = fault.New(fault.Unsupported, "", "", "log driver %q is not supported", c.Type).
			WithHint("this engine has %s and %s", strings.Join(LogDrivers[:len(LogDrivers)-1], ", "), LogDrivers[len(LogDrivers)-1])
	}
	return d, err
}

func checkLog(r *Request) error {
	_, err := Log(r.HostConfig.LogConfig, r.Config)
	return err
}

// Log resolves the log configuration: sizes of 0 mean the engine's defaults, and
// the attributes are those of the container which each line shall carry.
func Log(c api.LogConfig, config *api.Config) (container.LogConfig, error) {
	out := container.LogConfig{Driver: c.Type}
	d, err := FindLogDriver(c)
	if err != nil {
		return out, err
	}
	if _, err := LogTag(d.Tag, &container.Record{Config: config, HostConfig: &api.HostConfig{LogConfig: c}}); err != nil {
		return out, err
	}
	out.MaxSize, out.MaxFiles = d.MaxSize, d.MaxFiles
	if out.MaxFiles > 1 && out.MaxSize == -1 {
		return out, invalid("max-file > 1 has no effect without max-size")
	}
	out.Attrs, err = logAttrs(d.Options, config)
	return out, err
}

// logAttrs picks the labels and variables which the log's lines carry.
func logAttrs(o logs.Options, config *api.Config) (map[string]string, error) {
	if o.Labels == "" && o.Env == "" && o.LabelsRegex == "" && o.EnvRegex == "" {
		return nil, nil
	}
	labels, err := newPicker("labels-regex", o.Labels, o.LabelsRegex)
	if err != nil {
		return nil, err
	}
	env, err := newPicker("env-regex", o.Env, o.EnvRegex)
	if err != nil {
		return nil, err
	}
	attrs := make(map[string]string)
	for k, v := range config.Labels {
		if labels.picks(k) {
			attrs[k] = v
		}
	}
	for _, e := range config.Env {
		if k, v, ok := strings.Cut(e, "="); ok && env.picks(k) {
			attrs[k] = v
		}
	}
	return attrs, nil
}

type picker struct {
	names   []string
	pattern *regexp.Regexp
}

func newPicker(option, names, pattern string) (picker, error) {
	p := picker{}
	if names != "" {
		p.names = strings.Split(names, ",")
	}
	if pattern != "" {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return p, invalid("invalid value for log option %s: %v", option, err)
		}
		p.pattern = re
	}
	return p, nil
}

func (p picker) picks(name string) bool {
	return slices.Contains(p.names, name) || (p.pattern != nil && p.pattern.MatchString(name))
}
