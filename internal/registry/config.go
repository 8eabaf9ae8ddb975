package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/docker/go-units"

	"berth/internal/fault"
	"berth/internal/registry/auth"
	"berth/internal/registry/cache"
)

// File is what a registry's configuration file (TOML) may say, and how it is
// written there. Names of files are relative to the configuration file.
type File struct {
	Listen       string   `toml:"listen"`
	Root         string   `toml:"root"`
	ReadOnly     bool     `toml:"read-only"`
	AllowMissing bool     `toml:"allow-missing"`
	Origins      []string `toml:"cors-origins"`
	Metrics      string   `toml:"metrics"`
	Page         *bool    `toml:"page"`
	UploadAge    duration `toml:"upload-age"`
	AccessLog    string   `toml:"access-log"`
	TLS          struct {
		Cert     string `toml:"cert"`
		Key      string `toml:"key"`
		ClientCA string `toml:"client-ca"`
	} `toml:"tls"`
	Auth struct {
		Realm    string              `toml:"realm"`
		Htpasswd string              `toml:"htpasswd"`
		Groups   map[string][]string `toml:"groups"`
		Token    fileToken           `toml:"token"`
		Rules    []fileRule          `toml:"rule"`
	} `toml:"auth"`
	GC struct {
		Interval duration `toml:"interval"`
		Grace    duration `toml:"grace"`
		Untagged bool     `toml:"untagged"`
	} `toml:"gc"`
	Cache fileCache `toml:"cache"`
}

type fileToken struct {
	Endpoint bool     `toml:"endpoint"`
	TTL      duration `toml:"ttl"`
	URL      string   `toml:"url"`
	Keys     string   `toml:"keys"`
	Realm    string   `toml:"realm"`
	Issuer   string   `toml:"issuer"`
	Service  string   `toml:"service"`
}

type fileRule struct {
	Who          []string `toml:"who"`
	Repositories []string `toml:"repositories"`
	Allow        []string `toml:"allow"`
}

type fileCache struct {
	Upstream     string   `toml:"upstream"`
	Username     string   `toml:"username"`
	PasswordFile string   `toml:"password-file"`
	TokenHosts   []string `toml:"token-hosts"`
	TTL          duration `toml:"ttl"`
	Budget       size     `toml:"budget"`
}

// duration is written as "90s", size as "20GB".
type (
	duration time.Duration
	size     int64
)

// UnmarshalText reads a duration.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	*d = duration(v)
	return err
}

// UnmarshalText reads a size.
func (s *size) UnmarshalText(text []byte) error {
	v, err := units.RAMInBytes(string(text))
	*s = size(v)
	return err
}

// LoadFile reads a configuration file. Keys that mean nothing are refused by
// name.
func LoadFile(path string) (*File, error) {
	const op = "read registry configuration"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, "", "%w", err)
	}
	f := &File{}
	meta, err := toml.Decode(string(text), f)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, path, "%w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		var names []string
		for _, k := range unknown {
			names = append(names, k.String())
		}
		return nil, fault.New(fault.Invalid, op, path, "unknown key %s", strings.Join(names, ", "))
	}
	dir := filepath.Dir(path)
	for _, p := range []*string{&f.Root, &f.TLS.Cert, &f.TLS.Key, &f.TLS.ClientCA, &f.Auth.Htpasswd, &f.Auth.Token.Keys, &f.Cache.PasswordFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return f, nil
}

// Config returns what the file says as a Config, without storage and loggers.
func (f *File) Config() (Config, error) {
	const op = "read registry configuration"
	t := f.Auth.Token
	cfg := Config{
		ReadOnly: f.ReadOnly, AllowMissing: f.AllowMissing, Origins: f.Origins, Metrics: f.Metrics,
		NoPage: f.Page != nil && !*f.Page, UploadAge: time.Duration(f.UploadAge),
		GC: GC{Interval: time.Duration(f.GC.Interval), Grace: time.Duration(f.GC.Grace), Untagged: f.GC.Untagged},
		Auth: auth.Config{
			Realm: f.Auth.Realm, Htpasswd: f.Auth.Htpasswd, Groups: f.Auth.Groups,
			Token: auth.Token{Endpoint: t.Endpoint, TTL: time.Duration(t.TTL), URL: t.URL, Keys: t.Keys, Realm: t.Realm, Issuer: t.Issuer, Service: t.Service},
		},
	}
	for i, r := range f.Auth.Rules {
		allow, err := auth.ParseRights(r.Allow)
		if err != nil {
			return cfg, fault.New(fault.Invalid, op, fmt.Sprintf("auth.rule %d", i+1), "allow: %w", err)
		}
		cfg.Auth.Rules = append(cfg.Auth.Rules, auth.Rule{Who: r.Who, Repositories: r.Repositories, Allow: allow})
	}
	if (f.TLS.Cert == "") != (f.TLS.Key == "") {
		return cfg, fault.New(fault.Invalid, op, "tls", "a certificate needs a key, and a key a certificate")
	}
	if c := f.Cache; c.Upstream != "" {
		cfg.Cache = &cache.Config{Upstream: c.Upstream, Username: c.Username, TokenHosts: c.TokenHosts, TTL: time.Duration(c.TTL), Budget: int64(c.Budget)}
		if c.PasswordFile != "" {
			text, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				return cfg, fault.New(fault.Invalid, op, "cache.password-file", "%w", err)
			}
			cfg.Cache.Password = strings.TrimRight(string(text), "\r\n")
		}
	} else if c.Username != "" || c.PasswordFile != "" || c.Budget != 0 || c.TTL != 0 || len(c.TokenHosts) > 0 {
		return cfg, fault.New(fault.Invalid, op, "cache", "upstream is missing")
	}
	return cfg, nil
}
