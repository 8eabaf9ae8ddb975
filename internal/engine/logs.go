package engine

import (
	"context"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/logs"
	"berth/internal/monitor"

	api "github.com/moby/moby/api/types/container"
)

// logTime is docker's format of time stamps in front of log lines: nanoseconds
// with trailing zeros, so that lines stay aligned.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

// logPath is the container's log file. Only what anybody may read has docker's
// name, so that nobody takes the one format for the other. The driver local wrote
// under docker's name once: a container that has such a log goes on with it.
func (e *Engine) logPath(rec *container.Record) string {
	docker := filepath.Join(e.dir(rec.ID), rec.ID+"-json.log")
	switch rec.Log.Driver {
	case vocabulary.LogLocal:
		if exists(docker) {
			return docker
		}
		fallthrough
	case vocabulary.LogSyslog:
		return filepath.Join(e.dir(rec.ID), rec.ID+"-local.log")
	}
	return docker
}

// logReadable tells whether a container's log can be shown.
func logReadable(rec *container.Record) bool {
	d, err := vocabulary.FindLogDriver(rec.HostConfig.LogConfig)
	return err == nil && d.Readable
}

// logConfig is what the monitor has to know of a container's log.
func (e *Engine) logConfig(rec *container.Record) monitor.LogConfig {
	d, err := vocabulary.FindLogDriver(rec.HostConfig.LogConfig)
	if err != nil || d.Format == nil {
		return monitor.LogConfig{Driver: monitor.NoLog}
	}
	l := monitor.LogConfig{
		Driver: monitor.Local, Path: e.logPath(rec), MaxSize: d.MaxSize, MaxFiles: d.MaxFiles,
		Compress: d.Compress, Buffer: d.Buffer, Attrs: rec.Log.Attrs,
	}
	if rec.Log.Driver != vocabulary.LogJSONFile {
		if d.Syslog == nil {
			l.Attrs = withTag(l.Attrs, d.Tag, rec)
		}
		return l
	}
	l.Driver = monitor.JSONFile
	l.Attrs = withTag(l.Attrs, d.Tag, rec)
	if l.MaxSize == 0 {
		l.MaxSize = e.cfg.LogMaxSize
	}
	if l.MaxFiles == 0 {
		l.MaxFiles = e.cfg.LogMaxFiles
	}
	return l
}

func withTag(attrs map[string]string, template string, rec *container.Record) map[string]string {
	tag, err := vocabulary.LogTag(template, rec)
	if err != nil || tag == "" {
		return attrs
	}
	all := maps.Clone(attrs)
	if all == nil {
		all = make(map[string]string, 1)
	}
	all["tag"] = tag
	return all
}

// ContainerTTY reports whether a container's output is one raw stream.
func (e *Engine) ContainerTTY(ref string) (bool, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return false, err
	}
	return c.Record().Tty(), nil
}

// ContainerLogs writes a container's output to the two writers, line by line;
// that of a terminal goes to stdout. Following ends with the container.
func (e *Engine) ContainerLogs(ctx context.Context, ref string, o LogsOptions, stdout, stderr io.Writer) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	rec := c.Record()
	if !o.Stdout && !o.Stderr {
		return fault.New(fault.Invalid, "", "", "Bad parameters: you must choose at least one stream")
	}
	driver, err := vocabulary.FindLogDriver(rec.HostConfig.LogConfig)
	if err != nil {
		return err
	}
	if !driver.Readable {
		return logs.ErrNotReadable
	}
	tail, err := parseTail(o.Tail)
	if err != nil {
		return err
	}
	opts := logs.ReadOptions{Since: o.Since, Until: o.Until, Tail: tail}
	if o.Follow && rec.State.Up() {
		done, forget := followUntilEnd(c)
		defer forget()
		opts.Follow, opts.Done = true, done
	}
	w := logWriter{options: o, tty: rec.Tty(), stdout: stdout, stderr: stderr}
	return logs.Read(ctx, driver.Format, e.logPath(rec), opts, w.write)
}

// followUntilEnd returns a channel that is closed when the container has ended.
func followUntilEnd(c *container.Container) (<-chan struct{}, func()) {
	ended, forget := c.Wait(api.WaitConditionNotRunning)
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		select {
		case <-ended:
			close(done)
		case <-stop:
		}
	}()
	return done, func() { close(stop); forget() }
}

func parseTail(s string) (int, error) {
	if s == "" || s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "", "", "invalid value for tail: %q", s)
	}
	return n, nil
}

// logWriter turns entries into what `logs` prints.
type logWriter struct {
	options        LogsOptions
	tty            bool
	stdout, stderr io.Writer
	line           []byte
}

func (w *logWriter) write(entry logs.Entry) error {
	out, on := w.stdout, w.options.Stdout
	if entry.Stream == "stderr" && !w.tty {
		out, on = w.stderr, w.options.Stderr
	}
	if !on || out == nil {
		return nil
	}
	if !w.options.Timestamps && !w.options.Details {
		_, err := out.Write(entry.Line)
		return err
	}
	w.line = w.line[:0]
	if w.options.Timestamps {
		w.line = entry.Time.UTC().AppendFormat(w.line, logTime)
		w.line = append(w.line, ' ')
	}
	if w.options.Details {
		w.line = append(append(w.line, details(entry.Attrs)...), ' ')
	}
	w.line = append(w.line, entry.Line...)
	_, err := out.Write(w.line)
	return err
}

// details writes attributes as docker does: k=v,k=v in order of the keys.
func details(attrs map[string]string) string {
	parts := make([]string, 0, len(attrs))
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		parts = append(parts, k+"="+attrs[k])
	}
	return strings.Join(parts, ",")
}
