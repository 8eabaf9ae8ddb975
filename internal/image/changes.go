package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"

	"berth/internal/fault"
)

// ApplyChanges returns config with Dockerfile instructions applied, one a
// string, as `import --change` and `commit --change` take them: CMD, ENTRYPOINT,
// ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and
// WORKDIR. Variables are replaced where a Dockerfile replaces them.
func ApplyChanges(config v1.DockerOCIImageConfig, changes []string) (v1.DockerOCIImageConfig, error) {
	config.Env = slices.Clone(config.Env)
	config.Labels = maps.Clone(config.Labels)
	config.ExposedPorts = maps.Clone(config.ExposedPorts)
	config.Volumes = maps.Clone(config.Volumes)
	for _, line := range changes {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := cutSpace(line)
		rest = strings.ReplaceAll(rest, "\\\n", "")
		apply, ok := instructions[strings.ToUpper(word)]
		if !ok {
			return config, fault.New(fault.Invalid, "apply change", quoteShort(line), "%s is not a valid change command", strings.ToUpper(word)).
				WithHint("use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME or WORKDIR")
		}
		if rest == "" {
			return config, fault.New(fault.Invalid, "apply change", quoteShort(line), "%s requires at least one argument", strings.ToUpper(word))
		}
		if err := apply(&config, rest); err != nil {
			return config, &fault.Error{Kind: fault.Invalid, Op: "apply change", Subject: quoteShort(line), Err: err}
		}
	}
	return config, nil
}

var instructions = map[string]func(*v1.DockerOCIImageConfig, string) error{
	"CMD":         changeCmd,
	"ENTRYPOINT":  changeEntrypoint,
	"ENV":         changeEnv,
	"EXPOSE":      changeExpose,
	"HEALTHCHECK": changeHealthcheck,
	"LABEL":       changeLabel,
	"ONBUILD":     changeOnBuild,
	"SHELL":       changeShell,
	"STOPSIGNAL":  changeStopSignal,
	"USER":        changeUser,
	"VOLUME":      changeVolume,
	"WORKDIR":     changeWorkdir,
}

func cutSpace(s string) (word, rest string, found bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimSpace(s[i:]), true
}

// command reads the exec form (a JSON array of strings) or the shell form.
func command(c *v1.DockerOCIImageConfig, s string) []string {
	var args []string
	if strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &args) == nil {
		return args
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

func changeCmd(c *v1.DockerOCIImageConfig, s string) error {
	c.Cmd = command(c, s)
	return nil
}

func changeEntrypoint(c *v1.DockerOCIImageConfig, s string) error {
	c.Entrypoint = command(c, s)
	return nil
}

func changeShell(c *v1.DockerOCIImageConfig, s string) error {
	var args []string
	if err := json.Unmarshal([]byte(s), &args); err != nil || len(args) == 0 {
		return fmt.Errorf("SHELL requires the arguments to be in JSON form")
	}
	c.Shell = args
	return nil
}

func changeEnv(c *v1.DockerOCIImageConfig, s string) error {
	pairs, err := keyValues(c, s)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		prefix := p[0] + "="
		i := slices.IndexFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, prefix) })
		if i < 0 {
			c.Env = append(c.Env, prefix+p[1])
		} else {
			c.Env[i] = prefix + p[1]
		}
	}
	return nil
}

func changeLabel(c *v1.DockerOCIImageConfig, s string) error {
	pairs, err := keyValues(c, s)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		c.Labels[p[0]] = p[1]
	}
	return nil
}

func changeExpose(c *v1.DockerOCIImageConfig, s string) error {
	words, err := splitWords(s, envOf(c))
	if err != nil {
		return err
	}
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, w := range words {
		ports, proto, ok := strings.Cut(w, "/")
		proto = strings.ToLower(proto)
		if !ok {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("invalid protocol in port %q", w)
		}
		first, last, isRange := strings.Cut(ports, "-")
		from, err1 := strconv.ParseUint(first, 10, 16)
		to := from
		var err2 error
		if isRange {
			to, err2 = strconv.ParseUint(last, 10, 16)
		}
		if err1 != nil || err2 != nil || to < from || from == 0 {
			return fmt.Errorf("invalid port %q", w)
		}
		for p := from; p <= to; p++ {
			c.ExposedPorts[strconv.FormatUint(p, 10)+"/"+proto] = struct{}{}
		}
	}
	return nil
}

func changeVolume(c *v1.DockerOCIImageConfig, s string) error {
	var paths []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &paths) != nil {
		var err error
		if paths, err = splitWords(s, envOf(c)); err != nil {
			return err
		}
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, p := range paths {
		if p = strings.TrimSpace(p); p == "" {
			return fmt.Errorf("VOLUME specified can not be an empty string")
		}
		c.Volumes[p] = struct{}{}
	}
	return nil
}

func changeUser(c *v1.DockerOCIImageConfig, s string) (err error) {
	c.User, err = oneWord("USER", s, envOf(c))
	return err
}

func changeWorkdir(c *v1.DockerOCIImageConfig, s string) error {
	dir, err := oneWord("WORKDIR", s, envOf(c))
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", c.WorkingDir, dir)
	}
	c.WorkingDir = path.Clean(dir)
	return nil
}

func changeStopSignal(c *v1.DockerOCIImageConfig, s string) (err error) {
	c.StopSignal, err = oneWord("STOPSIGNAL", s, envOf(c))
	return err
}

func changeOnBuild(c *v1.DockerOCIImageConfig, s string) error {
	switch word, _, _ := cutSpace(s); strings.ToUpper(word) {
	case "ONBUILD":
		return fmt.Errorf("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "FROM", "MAINTAINER":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(word))
	}
	c.OnBuild = append(slices.Clone(c.OnBuild), s)
	return nil
}

func changeHealthcheck(c *v1.DockerOCIImageConfig, s string) error {
	h := &v1.HealthcheckConfig{}
	for strings.HasPrefix(s, "--") {
		flag, rest, _ := cutSpace(s)
		name, value, _ := strings.Cut(flag[2:], "=")
		if err := healthFlag(h, name, value); err != nil {
			return err
		}
		s = rest
	}
	kind, rest, _ := cutSpace(s)
	switch strings.ToUpper(kind) {
	case "NONE":
		if rest != "" {
			return fmt.Errorf("HEALTHCHECK NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if rest == "" {
			return fmt.Errorf("missing command after HEALTHCHECK CMD")
		}
		var args []string
		if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &args) == nil {
			h.Test = append([]string{"CMD"}, args...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return fmt.Errorf("unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	c.Healthcheck = h
	return nil
}

func healthFlag(h *v1.HealthcheckConfig, name, value string) error {
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("--retries cannot be %q", value)
		}
		h.Retries = n
		return nil
	}
	target := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}[name]
	if target == nil {
		return fmt.Errorf("unknown flag: %s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return err
	}
	if d != 0 && d < time.Millisecond {
		return fmt.Errorf("interval %q cannot be less than 1ms", name)
	}
	*target = d
	return nil
}
