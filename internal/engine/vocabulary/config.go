package vocabulary

import (
	"path"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
)

// The kernel's limit of a host name is 64 bytes.
const maxHostname = 64

func checkHostname(r *Request) error {
	h := r.Config.Hostname
	if len(h) > maxHostname {
		return invalid("invalid hostname %q: longer than %d bytes", h, maxHostname)
	}
	if strings.ContainsAny(h, "\x00\n /") {
		return invalid("invalid hostname format: %q", h)
	}
	return nil
}

func checkDomainname(r *Request) error {
	d := r.Config.Domainname
	if len(d) > maxHostname || strings.ContainsAny(d, "\x00\n /") {
		return invalid("invalid domain name: %q", d)
	}
	return nil
}

func checkEnv(r *Request) error {
	for _, e := range r.Config.Env {
		if strings.HasPrefix(e, "=") || e == "" || strings.ContainsRune(e, 0) {
			return invalid("invalid environment variable: %q", e)
		}
	}
	return nil
}

func checkCommand(r *Request) error {
	c := r.Config
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return fault.New(fault.Invalid, "", "", "no command specified").
			WithHint("the image names neither a command nor an entrypoint; give one after the image's name")
	}
	for _, list := range [][]string{c.Entrypoint, c.Cmd} {
		for _, arg := range list {
			if strings.ContainsRune(arg, 0) {
				return invalid("invalid argument %q: it holds a zero byte", arg)
			}
		}
	}
	return nil
}

func checkHealth(r *Request) error {
	h := r.Config.Healthcheck
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < api.MinimumDuration {
			return invalid("%s in Healthcheck cannot be less than %s", d.name, api.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) > 0 {
		switch kind := h.Test[0]; {
		case kind == "NONE":
		case kind == "CMD" && len(h.Test) > 1:
		case kind == "CMD-SHELL" && len(h.Test) == 2:
		default:
			return invalid("invalid health check %q: it must be NONE, CMD with arguments or CMD-SHELL with one command", h.Test)
		}
	}
	return nil
}

func checkWorkingDir(r *Request) error {
	d := r.Config.WorkingDir
	if d == "" {
		return nil
	}
	if !path.IsAbs(d) || strings.ContainsRune(d, 0) {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", d)
	}
	return nil
}

func checkStopSignal(r *Request) error {
	if r.Config.StopSignal == "" {
		return nil
	}
	_, err := container.ParseSignal(r.Config.StopSignal)
	return err
}

func checkExposed(r *Request) error {
	for p := range r.Config.ExposedPorts {
		if err := checkPort(p); err != nil {
			return err
		}
	}
	return nil
}
