package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxAuth bounds a header with credentials, in bytes; the server's own limit on
// all headers together is 1 MiB.
const maxAuth = 256 << 10

// registryAuth is what a request says about who asks a registry.
type registryAuth struct {
	config registry.AuthConfig
	err    error // why the header could not be read
}

// registryAuth reads X-Registry-Auth, the credentials for one registry, or what
// X-Registry-Config, those for several, has for the registry of a name. Clients
// exist that send nonsense there and expect to be served anonymously, so what
// can't be read is told only when the registry wants to know who asks.
func (x *exchange) registryAuth(ref string) registryAuth {
	if header := x.r.Header.Get("X-Registry-Auth"); header != "" {
		var a registryAuth
		a.err = decodeHeader("X-Registry-Auth", header, &a.config)
		if a.err == nil {
			a.err = splitAuth(&a.config)
		}
		if a.err != nil {
			a.config = registry.AuthConfig{}
		}
		return a
	}
	all, err := x.registryConfig()
	if err != nil {
		return registryAuth{err: err}
	}
	return registryAuth{config: authFor(all, ref)}
}

// registryConfig reads X-Registry-Config: credentials by host name.
func (x *exchange) registryConfig() (map[string]registry.AuthConfig, error) {
	header := x.r.Header.Get("X-Registry-Config")
	if header == "" {
		return nil, nil
	}
	var all map[string]registry.AuthConfig
	if err := decodeHeader("X-Registry-Config", header, &all); err != nil {
		return nil, err
	}
	for host, a := range all {
		if err := splitAuth(&a); err != nil {
			return nil, fault.New(fault.Invalid, "read credentials for", host, "%w", err)
		}
		all[host] = a
	}
	return all, nil
}

// decodeHeader reads JSON in base64 of any alphabet, with padding or without.
func decodeHeader(name, header string, v any) error {
	if len(header) > maxAuth {
		return fault.New(fault.Invalid, "", "", "the header %s is longer than %d KiB", name, maxAuth>>10)
	}
	text := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(header), "=")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		// Never the content: it may be a password.
		return fault.New(fault.Invalid, "", "", "the header %s is not JSON in base64", name)
	}
	return nil
}

// splitAuth fills user name and password from the field that holds both.
func splitAuth(a *registry.AuthConfig) error {
	if a.Auth == "" || a.Username != "" || a.Password != "" {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(a.Auth)
	user, password, ok := strings.Cut(string(data), ":")
	if err != nil || !ok {
		return errors.New("the field auth is not user:password in base64")
	}
	a.Username, a.Password, a.Auth = user, strings.TrimRight(password, "\x00"), ""
	return nil
}

// The names under which clients keep the credentials for Docker Hub.
var hubNames = []string{"docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"}

// authFor picks the credentials for the registry of a name.
func authFor(all map[string]registry.AuthConfig, ref string) registry.AuthConfig {
	host, _, found := strings.Cut(ref, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host = "docker.io"
	}
	names := []string{host, "https://" + host, "http://" + host}
	if host == "docker.io" {
		names = hubNames
	}
	for _, n := range names {
		for _, key := range []string{n, n + "/", n + "/v1/", n + "/v2/"} {
			if a, ok := all[key]; ok {
				return a
			}
		}
	}
	return registry.AuthConfig{}
}

// explain adds to a refusal that the request's credentials could not be read.
func (a registryAuth) explain(err error) error {
	if err == nil || a.err == nil {
		return err
	}
	switch kind := fault.KindOf(err); kind {
	case fault.Unauthorized, fault.Forbidden, fault.NotFound:
		return fault.New(kind, "", "", "%w", err).WithHint("the registry was asked anonymously: %v", a.err)
	}
	return err
}

// loginBody is an AuthConfig as all clients send it; the mail address has had
// no meaning since registries of version 2.
type loginBody struct {
	registry.AuthConfig
	Email string `json:"email,omitempty"`
}

// login asks a registry whether credentials are good.
func login(x *exchange) error {
	var body loginBody
	if err := x.decode(&body); err != nil {
		return err
	}
	if err := splitAuth(&body.AuthConfig); err != nil {
		return fault.New(fault.Invalid, "", "", "%w", err)
	}
	answer, err := x.api.engine.RegistryLogin(x.ctx(), body.AuthConfig)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, answer)
}

// inspectDistribution serves GET /distribution/{name}/json.
func inspectDistribution(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	if verb != "json" {
		return notFound(x)
	}
	auth := x.registryAuth(name)
	d, err := x.api.engine.Distribution(x.ctx(), name, auth.config)
	if err != nil {
		return auth.explain(err)
	}
	if d.Platforms == nil {
		d.Platforms = []ocispec.Platform{}
	}
	return x.reply(http.StatusOK, d)
}

func searchImages(x *exchange) error {
	o := images.SearchOptions{Term: x.query("term")}
	if strings.TrimSpace(o.Term) == "" {
		return fault.New(fault.Invalid, "", "", "the parameter term is missing")
	}
	if text := x.query("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 100 {
			return badQuery("limit", text, "is not a number from 1 to 100")
		}
		o.Limit = n
	}
	var err error
	if o.Filters, err = filter.Parse(x.query("filters")); err != nil {
		return err
	}
	auth := x.registryAuth(o.Term)
	o.Auth = auth.config
	list, err := x.api.engine.RegistrySearch(x.ctx(), o)
	if err != nil {
		return auth.explain(err)
	}
	if list == nil {
		list = []registry.SearchResult{}
	}
	return x.reply(http.StatusOK, list)
}

// getBerthImage serves GET /berth/images/{name}/{verb}.
func getBerthImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch {
	case verb == "" && name == "tree":
		return imageTree(x)
	case verb == "referrers":
		return referrers(x, name)
	}
	return notFound(x)
}

// postBerthImage serves POST /berth/images/{name}/{verb}.
func postBerthImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch verb {
	case "verify":
		return verifyImage(x, name)
	case "attach":
		return attachArtifact(x, name)
	}
	return notFound(x)
}

// verifyBody is what verify takes, if anything.
type verifyBody struct {
	PublicKeys []string `json:"publicKeys"` // PEM
}

func verifyImage(x *exchange, name string) error {
	var body verifyBody
	if err := x.decode(&body); err != nil {
		return err
	}
	auth := x.registryAuth(name)
	o := images.VerifyOptions{PublicKeys: body.PublicKeys, Auth: auth.config}
	return x.progress(func(out io.Writer) error {
		return auth.explain(x.api.engine.ImageVerify(x.ctx(), name, o, out))
	})
}

func imageTree(x *exchange) error {
	tree, err := x.api.engine.ImageTree(x.ctx())
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, tree)
}

func referrers(x *exchange, name string) error {
	auth := x.registryAuth(name)
	list, err := x.api.engine.ImageReferrers(x.ctx(), name, x.query("artifactType"), auth.config)
	if err != nil {
		return auth.explain(err)
	}
	if list == nil {
		list = []ocispec.Descriptor{}
	}
	return x.reply(http.StatusOK, list)
}

// artifactBody is what attach takes; JSON carries bytes as base64.
type artifactBody struct {
	Manifest []byte   `json:"manifest"`
	Blobs    [][]byte `json:"blobs"`
}

func attachArtifact(x *exchange, name string) error {
	var body artifactBody
	if err := x.decode(&body); err != nil {
		return err
	}
	if len(body.Manifest) == 0 {
		return fault.New(fault.Invalid, "", "", "the field manifest is missing")
	}
	auth := x.registryAuth(name)
	err := x.api.engine.ImageAttach(x.ctx(), name, images.Artifact{Manifest: body.Manifest, Blobs: body.Blobs}, auth.config)
	if err != nil {
		return auth.explain(err)
	}
	return x.done(http.StatusCreated)
}
