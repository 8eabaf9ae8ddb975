package transfer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/distribution/reference"
	"golang.org/x/net/http/httpguts"

	"berth/internal/fault"
)

// Registries says how registries are reached: the one map for pull, push and
// build. The zero value reaches each where its name says.
type Registries struct {
	// Default is for every registry without an entry of its own.
	Default Registry `toml:"default"`
	// Hosts holds entries by host[:port], as it stands in image names.
	Hosts map[string]*Registry `toml:"registry"`
}

// Registry is how one registry is reached.
type Registry struct {
	Access
	// Mirrors are asked first, in this order. What they do not have, and what
	// they fail to give, is asked of the next and at last of the registry.
	// Pushes go to the registry itself.
	Mirrors []Mirror `toml:"mirror"`
}

// Mirror is another place that has what a registry has.
type Mirror struct {
	// URL is http[s]://host[:port].
	URL string `toml:"url"`
	// Prefix goes before the repository's path at the mirror; "{registry}" in
	// it stands for the registry's name: pull-through caches of several
	// registries keep each below a path of its own.
	Prefix string `toml:"prefix"`
	// DigestsOnly keeps the mirror from saying what a tag means.
	DigestsOnly bool `toml:"digests-only"`
	// Username and Password (or PasswordFile) are for the mirror. A registry's
	// own credentials never go to its mirrors.
	Username     string `toml:"username"`
	Password     string `toml:"password"`
	PasswordFile string `toml:"password-file"`
	Access

	base, host string // from URL
}

// Access is how a host is spoken to.
type Access struct {
	PlainHTTP  bool              `toml:"plain-http"`  // no TLS; not for mirrors, whose URL says it
	Insecure   bool              `toml:"insecure"`    // whatever certificate it shows
	CA         string            `toml:"ca"`          // file of certificates that are trusted besides the system's
	ClientCert string            `toml:"client-cert"` // file; shown to this host alone
	ClientKey  string            `toml:"client-key"`  // file
	Headers    map[string]string `toml:"headers"`     // sent to this host alone
	// AuthHosts are hosts to which this one may send with credentials for a
	// token, besides those of its own domain.
	AuthHosts []string `toml:"auth-hosts"`

	roots *x509.CertPool
	cert  *tls.Certificate
}

// LoadRegistries reads a registries.toml and the files that it names. One that
// is not there is fault.NotFound. What it does not understand it refuses by
// name.
func LoadRegistries(path string) (Registries, error) {
	const op = "read registries"
	data, err := os.ReadFile(path)
	if err != nil {
		kind := fault.KindOf(err)
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.NotFound
		}
		return Registries{}, &fault.Error{Kind: kind, Op: op, Subject: path, Err: err}
	}
	r, err := parseRegistries(string(data))
	if err != nil {
		return Registries{}, fault.New(fault.Invalid, op, path, "%w", err)
	}
	if err := r.loadFiles(); err != nil {
		return Registries{}, fault.New(fault.Invalid, op, path, "%w", err)
	}
	return r, nil
}

// AddMirror adds a mirror, given as http[s]://host[:port], after those that a
// registry has already. What applied to the registry as one of the default goes
// on to.
func (r *Registries) AddMirror(host, url string) error {
	m := Mirror{URL: url}
	if err := m.check(); err != nil {
		return err
	}
	hosts := maps.Clone(r.Hosts)
	if hosts == nil {
		hosts = map[string]*Registry{}
	}
	entry := *r.lookup(hubName(host))
	entry.Mirrors = append(slices.Clone(entry.Mirrors), m)
	hosts[hubName(host)] = &entry
	r.Hosts = hosts
	return nil
}

// parseRegistries checks everything that can be checked without reading files.
func parseRegistries(text string) (Registries, error) {
	var r Registries
	meta, err := toml.Decode(text, &r)
	if err != nil {
		return r, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return r, fmt.Errorf("unknown key %s", unknown[0])
	}
	if err := r.Default.check(); err != nil {
		return r, fmt.Errorf("default: %w", err)
	}
	hosts := map[string]*Registry{}
	for host, entry := range r.Hosts {
		name := hubName(host)
		if named, err := reference.ParseNormalizedNamed(name + "/x/y"); err != nil || reference.Domain(named) != name {
			return r, fmt.Errorf("registry %.100q: want a host[:port] as in image names", host)
		}
		if _, twice := hosts[name]; twice {
			return r, fmt.Errorf("registry %q: %s stands there twice", host, name)
		}
		if err := entry.check(); err != nil {
			return r, fmt.Errorf("registry %q: %w", host, err)
		}
		hosts[name] = entry
	}
	r.Hosts = hosts
	return r, nil
}

func (r *Registry) check() error {
	if err := r.Access.check(); err != nil {
		return err
	}
	for i := range r.Mirrors {
		m := &r.Mirrors[i]
		if err := m.check(); err != nil {
			return fmt.Errorf("mirror %.100q: %w", m.URL, err)
		}
	}
	return nil
}

func (a *Access) check() error {
	if (a.ClientCert == "") != (a.ClientKey == "") {
		return errors.New("client-cert and client-key need one another")
	}
	if a.PlainHTTP && (a.CA != "" || a.ClientCert != "") {
		return errors.New("plain-http has no use for certificates")
	}
	for name, value := range a.Headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("%.100q is no HTTP header", name)
		}
		switch http.CanonicalHeaderKey(name) {
		case "Host", "Range", "Accept", "Connection", "Content-Length", "Content-Range", "Content-Type", "Transfer-Encoding":
			return fmt.Errorf("the header %s is not to be set", name)
		}
	}
	for _, host := range a.AuthHosts {
		if host == "" || strings.ContainsAny(host, "/@ *") {
			return fmt.Errorf("auth-hosts: %.100q is no host", host)
		}
	}
	return nil
}

var validPrefix = regexp.MustCompile(`^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

func (m *Mirror) check() error {
	u, err := url.Parse(m.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("want url = \"https://host[:port]\"")
	case u.User != nil:
		return errors.New("write username and password, not as part of the url")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the url has more than a host: write a path as prefix")
	case m.PlainHTTP:
		return errors.New("plain-http: write http:// in the url")
	case u.Scheme == "http" && (m.CA != "" || m.ClientCert != ""):
		return errors.New("plain http has no use for certificates")
	case m.Username == "" && (m.Password != "" || m.PasswordFile != ""):
		return errors.New("a password without username")
	case m.Password != "" && m.PasswordFile != "":
		return errors.New("password and password-file exclude one another")
	case m.Prefix != "" && !validPrefix.MatchString(strings.ReplaceAll(m.Prefix, "{registry}", "x")):
		return fmt.Errorf("%.100q cannot be part of a repository's path", m.Prefix)
	}
	m.base, m.host = u.Scheme+"://"+u.Host, u.Host
	return m.Access.check()
}

// loadFiles reads certificates, keys and passwords.
func (r *Registries) loadFiles() error {
	load := func(e *Registry) error {
		if err := e.Access.load(); err != nil {
			return err
		}
		for i := range e.Mirrors {
			if err := e.Mirrors[i].load(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := load(&r.Default); err != nil {
		return err
	}
	for _, e := range r.Hosts {
		if err := load(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mirror) load() error {
	if m.PasswordFile != "" {
		data, err := os.ReadFile(m.PasswordFile)
		if err != nil {
			return err
		}
		m.Password = strings.TrimRight(string(data), "\r\n")
	}
	return m.Access.load()
}

func (a *Access) load() error {
	if a.CA != "" {
		pem, err := os.ReadFile(a.CA)
		if err != nil {
			return err
		}
		if a.roots, err = x509.SystemCertPool(); err != nil {
			a.roots = x509.NewCertPool()
		}
		if !a.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM form", a.CA)
		}
	}
	if a.ClientCert != "" {
		cert, err := tls.LoadX509KeyPair(a.ClientCert, a.ClientKey)
		if err != nil {
			return err
		}
		a.cert = &cert
	}
	return nil
}

// lookup returns how a registry is reached.
func (r *Registries) lookup(host string) *Registry {
	if e := r.Hosts[host]; e != nil {
		return e
	}
	return &r.Default
}

// mayAuthAt reports whether a host is one of AuthHosts.
func (a *Access) mayAuthAt(hostport, host string) bool {
	return slices.Contains(a.AuthHosts, hostport) || slices.Contains(a.AuthHosts, host)
}

// hubName turns the other names of Docker Hub into the one in references.
func hubName(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return dockerHub
	}
	return host
}
