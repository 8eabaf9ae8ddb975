// Package credentials keeps what a person told `login`: it reads and writes
// docker's config.json and speaks to docker's credential helpers, so that who is
// logged in with one tool is with the other. It exists on the client's side
// alone; an engine gets credentials with each request and keeps none.
package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"
)

// hubKey is docker's historic name for Docker Hub in files and helpers.
const hubKey = "https://index.docker.io/v1/"

// maxFile bounds the size of a configuration file.
const maxFile = 4 << 20

// Auth is what a registry is told about who asks; the fields are those of the
// API's registry.AuthConfig, which is sent as X-Registry-Auth.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"` // user:password in base64, in files only
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Empty reports whether there is nothing to tell.
func (a Auth) Empty() bool {
	return a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == ""
}

// Header returns the value of X-Registry-Auth, "" when there is nothing to tell.
func (a Auth) Header() string {
	if a.Empty() {
		return ""
	}
	a.Auth = ""
	text, _ := json.Marshal(a) // strings always encode
	return base64.URLEncoding.EncodeToString(text)
}

// Config is one configuration file.
type Config struct {
	path string // "" when there is nowhere to keep one
	top  map[string]json.RawMessage
	auth map[string]json.RawMessage
	env  map[string]Auth // of DOCKER_AUTH_CONFIG, which goes first
}

// Path returns where the configuration is kept: config.json in the directory of
// BERTH_CONFIG, of DOCKER_CONFIG, or in ~/.docker.
func Path() string {
	for _, name := range []string{"BERTH_CONFIG", "DOCKER_CONFIG"} {
		if dir := os.Getenv(name); dir != "" {
			return filepath.Join(dir, "config.json")
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker", "config.json")
}

// Open reads the configuration. A file that is not there is empty; one that
// cannot be understood is an error and never replaced.
func Open() (*Config, error) {
	c := &Config{path: Path(), top: map[string]json.RawMessage{}, auth: map[string]json.RawMessage{}}
	if text := os.Getenv("DOCKER_AUTH_CONFIG"); text != "" {
		var env struct{ Auths map[string]Auth }
		if err := json.Unmarshal([]byte(text), &env); err != nil {
			return nil, fault.New(fault.Invalid, "read", "DOCKER_AUTH_CONFIG", "it is not JSON") // never its content
		}
		c.env = env.Auths
	}
	if c.path == "" {
		return c, nil
	}
	return c, c.read()
}

func (c *Config) read() error {
	text, err := os.ReadFile(c.path)
	if os.IsNotExist(err) || err == nil && len(strings.TrimSpace(string(text))) == 0 {
		return nil
	}
	if err == nil && len(text) > maxFile {
		err = errors.New("it is larger than anybody's")
	}
	if err != nil {
		return fault.New(fault.Invalid, "read", c.path, "%w", err)
	}
	top, auth := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &top); err != nil {
		return fault.New(fault.Invalid, "read", c.path, "%w", err).WithHint("mend the file, or move it away and log in again")
	}
	if raw, ok := top["auths"]; ok {
		if err := json.Unmarshal(raw, &auth); err != nil {
			return fault.New(fault.Invalid, "read auths of", c.path, "%w", err)
		}
	}
	if top == nil { // the file says null
		top = map[string]json.RawMessage{}
	}
	if auth == nil {
		auth = map[string]json.RawMessage{}
	}
	c.top, c.auth = top, auth
	return nil
}

// Key returns the name under which a registry's credentials are kept, given how
// a person or an image calls it.
func Key(registry string) string {
	switch host := hostOf(registry); host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return hubKey
	default:
		return host
	}
}

// KeyOf returns the name under which the credentials for an image's registry are
// kept.
func KeyOf(ref string) string {
	first, _, slash := strings.Cut(ref, "/")
	if !slash || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return hubKey
	}
	return Key(first)
}

// hostOf cuts a registry's address to its host and port.
func hostOf(address string) string {
	for _, scheme := range []string{"https://", "http://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	host, _, _ := strings.Cut(address, "/")
	return host
}

// For returns what is known for a key of Key or KeyOf; nothing known is an empty
// Auth and no error.
func (c *Config) For(ctx context.Context, key string) (Auth, error) {
	if a, ok := lookUp(c.env, key); ok {
		return finish(a, key)
	}
	if h := c.helper(key); h != "" {
		a, err := helperGet(ctx, h, key)
		if err != nil || !a.Empty() {
			return a, err
		}
	}
	raw, ok := lookUp(c.auth, key)
	if !ok {
		return Auth{}, nil
	}
	var a Auth
	if err := json.Unmarshal(raw, &a); err != nil {
		return Auth{}, fault.New(fault.Invalid, "read credentials for", key, "their entry in %s is malformed", c.path)
	}
	return finish(a, key)
}

// lookUp finds an entry by its key, then by the host that other keys name.
func lookUp[T any](entries map[string]T, key string) (T, bool) {
	if v, ok := entries[key]; ok {
		return v, true
	}
	want := hostOf(key)
	found, hit := "", false
	for name := range entries { // the smallest name, so that the answer is always the same
		if hostOf(name) == want && (!hit || name < found) {
			found, hit = name, true
		}
	}
	return entries[found], hit
}

// finish takes user and password out of the field that holds both in files.
func finish(a Auth, key string) (Auth, error) {
	a.ServerAddress = key
	if a.Auth == "" {
		return a, nil
	}
	text, err := base64.StdEncoding.DecodeString(a.Auth)
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok || user == "" {
		return Auth{}, fault.New(fault.Invalid, "read credentials for", key, "the field auth is not user:password in base64").
			WithHint("log in again: berth login %s", displayName(key))
	}
	a.Username, a.Password, a.Auth = user, strings.TrimRight(password, "\x00"), ""
	return a, nil
}

// displayName is how a person calls a key's registry on the command line.
func displayName(key string) string {
	if key == hubKey {
		return ""
	}
	return key
}

// helper returns the name of the program that keeps a key's credentials, "" for
// the file itself.
func (c *Config) helper(key string) string {
	var helpers map[string]string
	_ = json.Unmarshal(c.top["credHelpers"], &helpers) // what is malformed names nobody
	if h, ok := lookUp(helpers, key); ok {
		return h
	}
	var store string
	_ = json.Unmarshal(c.top["credsStore"], &store)
	return store
}

// All returns everything that is known, by key: what a build may need.
func (c *Config) All(ctx context.Context) (map[string]Auth, error) {
	keys := map[string]bool{}
	for key := range c.env {
		keys[key] = true
	}
	for key := range c.auth {
		keys[key] = true
	}
	var helpers map[string]string
	_ = json.Unmarshal(c.top["credHelpers"], &helpers)
	for key := range helpers {
		keys[key] = true
	}
	var store string
	_ = json.Unmarshal(c.top["credsStore"], &store)
	if store != "" {
		listed, err := helperList(ctx, store)
		if err != nil {
			return nil, err
		}
		for key := range listed {
			keys[key] = true
		}
	}
	all := map[string]Auth{}
	for key := range keys {
		a, err := c.For(ctx, key)
		if err != nil {
			return nil, err
		}
		if !a.Empty() {
			all[key] = a
		}
	}
	return all, nil
}
