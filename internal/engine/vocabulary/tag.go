package vocabulary

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"berth/internal/container"

	api "github.com/moby/moby/api/types/container"
)

// tagContext is what a template of the log option tag can name: docker's words.
type tagContext struct {
	ID, FullID, Name, FullName, ImageID, ImageFullID, ImageName, Command, DaemonName string

	// The same under the names of docker's own fields, which templates may use
	// too.
	Config                                          map[string]string // log options
	ContainerID, ContainerName, ContainerEntrypoint string
	ContainerArgs, ContainerEnv                     []string
	ContainerImageID, ContainerImageName            string
	ContainerCreated                                time.Time
	ContainerLabels                                 map[string]string

	options api.LogConfig
	config  *api.Config
}

// Hostname is that of the engine.
func (tagContext) Hostname() (string, error) { return os.Hostname() }

// ExtraAttributes are the labels and variables that the options labels and env
// name.
func (c tagContext) ExtraAttributes() (map[string]string, error) {
	d, err := FindLogDriver(c.options)
	if err != nil || c.config == nil {
		return nil, err
	}
	return logAttrs(d.Options, c.config)
}

// tagFunctions are those of docker's templates.
var tagFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	},
	"split": strings.Split,
	"join":  strings.Join,
	"title": func(s string) string {
		_, first := utf8.DecodeRuneInString(s)
		return strings.ToUpper(s[:first]) + s[first:]
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		blank := func(n int) string { return strings.Repeat(" ", min(max(n, 0), maxPad)) }
		return blank(before) + s + blank(after)
	},
	"truncate": func(s string, n int) string { return s[:min(len(s), max(n, 0))] },
}

// maxPad bounds what a template may make of nothing.
const maxPad = 1000

// LogTag carries out the template of the log option tag for a container; "" gives
// "".
func LogTag(text string, rec *container.Record) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := template.New("tag").Funcs(tagFunctions).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", invalid("invalid log option tag %q: %v", text, err)
	}
	short := func(id string) string { return id[:min(len(id), 12)] }
	image := strings.TrimPrefix(rec.ImageID.String(), "sha256:")
	c := tagContext{
		ID: short(rec.ID), FullID: rec.ID, Name: rec.Name, FullName: "/" + rec.Name, ImageID: short(image), ImageFullID: rec.ImageID.String(),
		ImageName: rec.ImageRef, Command: strings.Join(append([]string{rec.Path}, rec.Args...), " "), DaemonName: "berth",
		ContainerID: rec.ID, ContainerName: "/" + rec.Name, ContainerEntrypoint: rec.Path, ContainerArgs: rec.Args,
		ContainerImageID: rec.ImageID.String(), ContainerImageName: rec.ImageRef, ContainerCreated: rec.Created,
		config: rec.Config,
	}
	if rec.Config != nil {
		c.ContainerEnv, c.ContainerLabels = rec.Config.Env, rec.Config.Labels
	}
	if rec.HostConfig != nil {
		c.options, c.Config = rec.HostConfig.LogConfig, rec.HostConfig.LogConfig.Config
	}
	var out strings.Builder
	if err := t.Execute(&out, c); err != nil {
		return "", invalid("invalid log option tag %q: %v", text, err)
	}
	return strings.Map(func(r rune) rune { // a tag is one line, also where it is part of a message
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, out.String()), nil
}
