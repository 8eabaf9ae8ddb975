package main

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/engine/registries"
	"berth/internal/fault"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// The files that are read when they exist and no other is named.
const (
	defaultRegistries = "/etc/berth/registries.toml"
	defaultPolicy     = "/etc/berth/policy.toml"
)

// imageOptions are the flags about images and registries.
type imageOptions struct {
	keepBlobs          bool
	registries, policy string
	insecure, mirrors  []string
	downloads, uploads int
	maxLayerText       string
	maxLayer           int64
	maxFiles           int64
	listen, config     string
}

func (o *imageOptions) declare(f *pflag.FlagSet) {
	f.BoolVar(&o.keepBlobs, "keep-blobs", true, "keep layers packed, too, as they came: a push needs not pack them again")
	f.StringVar(&o.registries, "registries", "", "read how registries are reached from `FILE`\n(default \""+defaultRegistries+"\" if it exists)")
	f.StringVar(&o.policy, "policy", "", "read which images may be pulled from `FILE`\n(default \""+defaultPolicy+"\" if it exists)")
	f.StringArrayVar(&o.insecure, "insecure-registry", nil, "speak to `HOST[:PORT]` also without TLS or with any certificate; may be repeated")
	f.StringArrayVar(&o.mirrors, "registry-mirror", nil, "ask `URL` first for images of Docker Hub; may be repeated")
	f.IntVar(&o.downloads, "max-concurrent-downloads", 4, "fetch at most `NUMBER` layers at once")
	f.IntVar(&o.uploads, "max-concurrent-uploads", 5, "send at most `NUMBER` layers at once")
	f.StringVar(&o.maxLayerText, "max-layer-size", "128g", "refuse a layer of more than `SIZE` unpacked")
	f.Int64Var(&o.maxFiles, "max-layer-files", 4_000_000, "refuse a layer of more than `NUMBER` files")
	f.StringVar(&o.listen, "registry-listen", "", "serve a registry from the engine's own store on `ADDRESS`, as in :5000")
	f.StringVar(&o.config, "registry-config", "", "read the configuration of that registry from `FILE`, as berthd registry --config")
}

// complete checks the options and finds the default files.
func (o *imageOptions) complete() error {
	for _, f := range []struct {
		flag, byDefault string
		path            *string
	}{{"registries", defaultRegistries, &o.registries}, {"policy", defaultPolicy, &o.policy}, {"registry-config", "", &o.config}} {
		if err := findFile(f.flag, f.byDefault, f.path); err != nil {
			return err
		}
	}
	var err error
	if o.maxLayer, err = units.RAMInBytes(o.maxLayerText); err != nil || o.maxLayer <= 0 {
		return fault.New(fault.Invalid, "", "", "--max-layer-size %q is not a size such as 10g", o.maxLayerText)
	}
	for _, n := range []struct {
		flag  string
		value int64
	}{{"max-concurrent-downloads", int64(o.downloads)}, {"max-concurrent-uploads", int64(o.uploads)}, {"max-layer-files", o.maxFiles}} {
		if n.value < 1 {
			return fault.New(fault.Invalid, "", "", "--%s must be at least 1", n.flag)
		}
	}
	for _, host := range o.insecure {
		if err := checkRegistryHost(host); err != nil {
			return err
		}
	}
	for i, mirror := range o.mirrors {
		u, err := url.Parse(mirror)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fault.New(fault.Invalid, "", "", "--registry-mirror %q is not http[s]://HOST[:PORT]", mirror).
				WithHint("paths, credentials and certificates of mirrors are written in the file of --registries")
		}
		o.mirrors[i] = u.Scheme + "://" + u.Host
	}
	return o.checkListen()
}

func (o *imageOptions) checkListen() error {
	if o.listen == "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(o.listen); err != nil || port == "" {
		return fault.New(fault.Invalid, "", "", "--registry-listen %q is not [HOST]:PORT", o.listen)
	}
	return nil
}

// findFile makes the path of a named file absolute, or takes the default one if
// that exists.
func findFile(flag, byDefault string, path *string) error {
	if *path == "" {
		if byDefault == "" {
			return nil
		}
		if _, err := os.Stat(byDefault); err == nil || !errors.Is(err, fs.ErrNotExist) {
			*path = byDefault
		}
		return nil
	}
	if _, err := os.Stat(*path); err != nil {
		return fault.New(fault.Invalid, "", "", "--%s: %w", flag, err)
	}
	abs, err := filepath.Abs(*path)
	*path = abs
	return err
}

// checkRegistryHost refuses what cannot stand in front of an image's name.
func checkRegistryHost(host string) error {
	bad := fault.New(fault.Invalid, "", "", "--insecure-registry %q is not HOST[:PORT]", host)
	if strings.ContainsAny(host, "/@ ") || host == "" {
		if _, _, err := net.ParseCIDR(host); err == nil {
			return bad.WithHint("networks are not taken; name each registry")
		}
		return bad
	}
	return nil
}

// engineConfig is what the engine has to know of the options.
func (o *imageOptions) engineConfig() registries.Config {
	return registries.Config{
		Settings: o.settings(), DropBlobs: !o.keepBlobs, Registries: o.registries, Policy: o.policy,
		MaxLayerSize: o.maxLayer, MaxLayerFiles: o.maxFiles, Serve: o.listen, ServeFile: o.config,
	}
}

// settings are those that may change while the engine runs.
func (o *imageOptions) settings() registries.Settings {
	return registries.Settings{Insecure: o.insecure, HubMirrors: o.mirrors, Downloads: o.downloads, Uploads: o.uploads}
}
