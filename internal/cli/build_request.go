package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/internal/cli/spec"
	"berth/internal/credentials"
	"berth/internal/fault"
	"berth/internal/wire"
)

// request turns the flags into a request without its context.
func (f *buildFlags) request() (*wire.BuildRequest, error) {
	if err := f.refuse(); err != nil {
		return nil, err
	}
	rq := &wire.BuildRequest{
		Tags: f.tags, Target: f.target, Annotations: f.annotations, Attests: f.attests(), Allow: f.allow, Network: f.network, Pull: f.pull, NoCache: f.noCache,
		Reproducible: f.reproducible, Check: f.check || f.call == "check" || f.call == "lint",
	}
	for _, list := range f.platforms {
		rq.Platforms = append(rq.Platforms, strings.Split(list, ",")...)
	}
	for _, list := range f.noCacheFilter {
		rq.NoCacheOnly = append(rq.NoCacheOnly, strings.Split(list, ",")...)
	}
	for _, h := range f.hosts {
		name, address, ok := strings.Cut(h, "=")
		if !ok {
			name, address, ok = strings.Cut(h, ":")
		}
		if !ok || name == "" || address == "" {
			return nil, wrong("--add-host %q is not NAME:ADDRESS", h)
		}
		rq.Hosts = append(rq.Hosts, name+":"+strings.Trim(address, "[]"))
	}
	rq.Args = f.arguments()
	var err error
	if rq.Labels, err = labelled(f.labels); err != nil {
		return nil, err
	}
	if rq.Limits, err = f.limits.Limits(); err != nil {
		return nil, wrong("%s", err)
	}
	if rq.Secrets, err = secretsOf(f.secrets); err != nil {
		return nil, err
	}
	if f.network == "host" {
		rq.Allow = append(rq.Allow, "network.host") // who says it allows it
	}
	return rq, nil
}

// refuse names what cannot be had.
func (f *buildFlags) refuse() error {
	no := func(what, hint string) error {
		return fault.New(fault.Unsupported, "", "", "%s is not offered by berth", what).WithHint("%s", hint)
	}
	switch {
	case f.squash:
		return no("--squash", "use a multi-stage build: the last stage has what it copies")
	case f.isolation != "" && f.isolation != "default":
		return no("--isolation "+f.isolation, "it is for Windows")
	case len(f.securityOpt) > 0:
		return no("--security-opt", "a step with --security=insecure needs --allow security.insecure")
	case f.call != "" && f.call != "build" && f.call != "check" && f.call != "lint":
		return no("--call "+f.call, "use --check")
	}
	return nil
}

// attests puts --attest and its short forms together.
func (f *buildFlags) attests() []string {
	out := slices.Clone(f.attest)
	for _, short := range [][2]string{{"provenance", f.provenance}, {"sbom", f.sbom}} {
		kind, text := short[0], short[1]
		on, err := strconv.ParseBool(text)
		switch {
		case text == "" || err == nil && !on:
		case err == nil:
			out = append(out, "type="+kind)
		default:
			out = append(out, "type="+kind+","+text)
		}
	}
	return out
}

// arguments reads --build-arg: a name alone takes the caller's variable, and says
// nothing when there is none.
func (f *buildFlags) arguments() map[string]string {
	out := map[string]string{}
	for _, text := range f.args {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		out[name] = value
	}
	for _, name := range []string{"SOURCE_DATE_EPOCH"} {
		if value, ok := os.LookupEnv(name); ok && out[name] == "" {
			out[name] = value // as docker's clients have it
		}
	}
	return out
}

func labelled(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range list {
		name, value, _ := strings.Cut(text, "=")
		if name == "" {
			return nil, wrong("--label %q has no name", text)
		}
		out[name] = value
	}
	return out, nil
}

// maxSecret bounds one secret, as BuildKit does.
const maxSecret = 500 << 10

// secretsOf reads --secret: id=NAME with src=FILE or env=VARIABLE; with neither
// it is the variable of that name, or else the file.
func secretsOf(list []string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, text := range list {
		fields, err := spec.Fields("secret", text, "", "id", "src", "source", "env", "type")
		if err != nil {
			return nil, wrong("%s", err)
		}
		id, file, variable := fields["id"], fields["src"]+fields["source"], fields["env"]
		switch kind := fields["type"]; {
		case kind != "" && kind != "file" && kind != "env":
			return nil, wrong("--secret %q: type %q is neither file nor env", text, kind)
		case kind == "env" && variable == "":
			file, variable = "", file
		}
		if id == "" {
			return nil, wrong("--secret %q has no id", text).WithHint("use --secret id=NAME,src=FILE")
		}
		if file == "" && variable == "" {
			if _, ok := os.LookupEnv(id); ok {
				variable = id
			} else {
				file = id
			}
		}
		if variable != "" {
			value, ok := os.LookupEnv(variable)
			if !ok {
				return nil, wrong("--secret %q: there is no variable %s", text, variable)
			}
			out[id] = []byte(value)
			continue
		}
		data, err := os.ReadFile(expandHome(file))
		if err != nil {
			return nil, err
		}
		if len(data) > maxSecret {
			return nil, wrong("--secret %q: the file has more than %d bytes", text, maxSecret)
		}
		out[id] = data
	}
	return out, nil
}

func expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// allAuths returns who asks which registry. What cannot be read is said, and
// images that everybody may have can still be had.
func (a *app) allAuths(ctx context.Context) map[string]wire.BuildAuth {
	config, err := credentials.Open()
	if err == nil {
		var all map[string]credentials.Auth
		if all, err = config.All(ctx); err == nil {
			out := map[string]wire.BuildAuth{}
			for key, one := range all {
				out[key] = wire.BuildAuth{Username: one.Username, Password: one.Password, ServerAddress: one.ServerAddress,
					IdentityToken: one.IdentityToken, RegistryToken: one.RegistryToken}
			}
			return out
		}
	}
	fmt.Fprintf(a.err, "berth: warning: asking registries anonymously: %v\n", err)
	return nil
}
