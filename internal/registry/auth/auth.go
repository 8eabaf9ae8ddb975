package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"berth/internal/fault"
)

// Config says who is let in. The zero value lets everybody do everything.
type Config struct {
	Realm    string              // what a login dialog shows; "berth" when empty
	Htpasswd string              // path of a file of users with bcrypt hashes
	Groups   map[string][]string // group: its users
	Rules    []Rule              // none: whoever has logged in may do everything, others nothing
	Token    Token
}

// Token says which bearer tokens are believed.
type Token struct {
	// Endpoint offers /token to the users of the htpasswd file and to anonymous
	// callers; clients are then asked for tokens in place of passwords.
	Endpoint bool
	TTL      time.Duration // of its tokens; 5 minutes when 0
	Seed     []byte        // of its key, ed25519.SeedSize bytes
	URL      string        // how clients reach this registry (https://host); "": as they did

	Keys   string // file of public keys that another token server signs with
	Realm  string // that server's URL, to which clients are sent
	Issuer string // what its tokens must say; also in ours
	// Service is the audience that tokens must name: this registry. "berth" when
	// empty.
	Service string
}

// NeedsTokens reports whether there are users and rules for anonymous callers
// as well. docker asks once whether a registry wants a password, and sends one
// with everything or with nothing: only with tokens, which anonymous callers get
// too, can it do both.
func (c Config) NeedsTokens() bool {
	return c.Htpasswd != "" && slices.ContainsFunc(c.Rules, func(r Rule) bool { return slices.Contains(r.Who, "anonymous") })
}

// Auth tells callers apart. It is safe for concurrent use.
type Auth struct {
	cfg    Config
	pass   *passwords
	signer *signer
	keys   []publicKey // of another token server
	open   bool        // nothing was configured
}

// New reads the files that the configuration names.
func New(cfg Config) (*Auth, error) {
	a := &Auth{cfg: cfg}
	var err error
	for i, r := range cfg.Rules {
		if err := r.Check(); err != nil {
			return nil, fault.New(fault.Invalid, "read access rules", fmt.Sprintf("rule %d", i+1), "%w", err)
		}
	}
	if cfg.Htpasswd != "" {
		if a.pass, err = openPasswords(cfg.Htpasswd); err != nil {
			return nil, err
		}
	}
	t := &a.cfg.Token
	if t.Service == "" {
		t.Service = "berth"
	}
	if t.TTL <= 0 {
		t.TTL = 5 * time.Minute
	}
	if a.cfg.Realm == "" {
		a.cfg.Realm = "berth"
	}
	if strings.ContainsAny(a.cfg.Realm+t.Service+t.Realm+t.URL, "\"\\\r\n") {
		return nil, fault.New(fault.Invalid, "configure access", "", "realm, service and URLs cannot hold quotes or line ends")
	}
	if t.Endpoint {
		if len(t.Seed) != ed25519.SeedSize {
			return nil, fault.New(fault.Internal, "configure access", "", "the token endpoint has no key")
		}
		if a.signer, err = newSigner(t.Seed); err != nil {
			return nil, err
		}
	}
	if t.Keys != "" {
		if a.keys, err = readKeys(t.Keys); err != nil {
			return nil, err
		}
		if t.Issuer == "" || t.Realm == "" && !t.Endpoint {
			return nil, fault.New(fault.Invalid, "configure access", "", "tokens of another server need its issuer and its realm, the URL of its token endpoint")
		}
	}
	a.open = a.pass == nil && a.signer == nil && len(a.keys) == 0 && len(cfg.Rules) == 0
	if !a.open && len(a.cfg.Rules) == 0 {
		a.cfg.Rules = []Rule{{Who: []string{"users"}, Repositories: []string{"**"}, Allow: All}}
	}
	return a, nil
}

// Caller is who a request comes from and what he may do.
type Caller struct {
	User   string // "" is anonymous
	bearer bool   // showed a token, which may hold less than its user's rights
	rights func(repo string) Rights
	could  func(repo string) Rights // with another token; nil: no more than now
	sees   func(repo string) bool   // in lists
	lists  bool                     // may ask for the catalog
}

// May reports whether the caller has all the rights in a repository.
func (c *Caller) May(repo string, r Rights) bool { return c.rights(repo)&r == r }

// Could reports whether the caller would have all the rights with a token that
// he has only to ask for.
func (c *Caller) Could(repo string, r Rights) bool { return c.could != nil && c.could(repo)&r == r }

// Sees reports whether the catalog shows the repository to the caller.
func (c *Caller) Sees(repo string) bool { return c.sees(repo) }

// Lists reports whether the caller may ask for the catalog at all.
func (c *Caller) Lists() bool { return c.lists }

// Trusted returns a caller without bounds: the engine itself.
func Trusted(name string) *Caller {
	return &Caller{User: name, rights: func(string) Rights { return All }, sees: func(string) bool { return true }, lists: true}
}

var errCredentials = errors.New("user name or password is wrong")

// Identify tells who a request comes from. Wrong credentials are
// fault.Unauthorized, none at all is the anonymous caller.
func (a *Auth) Identify(r *http.Request) (*Caller, error) {
	if a.open {
		return Trusted(""), nil
	}
	given := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(given, " ")
	switch {
	case given == "":
		return a.user(""), nil
	case strings.EqualFold(scheme, "basic"):
		user, password, ok := r.BasicAuth()
		if !ok || a.pass == nil || !a.pass.check(user, password) {
			return nil, fault.New(fault.Unauthorized, "", "", "%w", errCredentials)
		}
		return a.user(user), nil
	case strings.EqualFold(scheme, "bearer"):
		return a.token(strings.TrimSpace(rest))
	}
	return nil, fault.New(fault.Unauthorized, "", "", "the authorization scheme %.20q is not supported", scheme)
}

func (a *Auth) groups(user string) []string {
	if user == "" {
		return nil
	}
	var in []string
	for group, users := range a.cfg.Groups {
		if slices.Contains(users, user) {
			in = append(in, group)
		}
	}
	return in
}

// user returns the caller to whom the rules alone apply.
func (a *Auth) user(name string) *Caller {
	groups := a.groups(name)
	rights := func(repo string) Rights { return rightsOf(a.cfg.Rules, name, groups, repo) }
	lists := name != ""
	for _, r := range a.cfg.Rules {
		lists = lists || r.speaksOf(name, groups)
	}
	return &Caller{User: name, rights: rights, sees: func(repo string) bool { return rights(repo)&Pull != 0 }, lists: lists}
}

// token returns the caller that a bearer token speaks of. One of our own gives
// what it says and the rules still allow, one of another server what it says.
func (a *Auth) token(text string) (*Caller, error) {
	keys := a.keys
	if a.signer != nil {
		keys = append([]publicKey{a.signer.public()}, keys...)
	}
	c, err := verifyToken(text, keys)
	ours := false
	if err == nil && a.signer != nil {
		_, e := verifyToken(text, []publicKey{a.signer.public()})
		ours = e == nil
	}
	if err == nil {
		issuer := a.cfg.Token.Issuer
		if ours {
			issuer = a.issuer()
		}
		err = c.check(issuer, a.cfg.Token.Service, time.Now())
	}
	if err == nil && ours && c.Subject != "" && (a.pass == nil || !a.pass.has(c.Subject)) {
		err = fmt.Errorf("%w: its user is gone", errToken)
	}
	if err != nil {
		return nil, fault.New(fault.Unauthorized, "", "", "%w", err)
	}
	granted := map[string]Rights{}
	catalog := false
	for _, acc := range c.Access {
		switch {
		case acc.Type == "repository":
			r, _ := ParseRights(slices.DeleteFunc(slices.Clone(acc.Actions), func(s string) bool { _, err := ParseRights([]string{s}); return err != nil }))
			granted[acc.Name] |= r
		case acc.Type == "registry" && acc.Name == "catalog" && slices.Contains(acc.Actions, "*"):
			catalog = true
		}
	}
	out := &Caller{User: c.Subject, bearer: true, lists: catalog}
	out.rights = func(repo string) Rights { return granted[repo] }
	out.sees = func(repo string) bool { return catalog || granted[repo]&Pull != 0 }
	if ours {
		ruled := a.user(c.Subject)
		out.rights = func(repo string) Rights { return granted[repo] & ruled.rights(repo) }
		out.could, out.sees = ruled.rights, ruled.sees
	}
	return out, nil
}

func (a *Auth) issuer() string {
	if a.cfg.Token.Issuer != "" && len(a.keys) == 0 {
		return a.cfg.Token.Issuer
	}
	return "berth-registry"
}

// Open reports whether everybody may do everything.
func (a *Auth) Open() bool { return a.open }

// Closed reports whether there is a way to log in.
func (a *Auth) Closed() bool { return a.pass != nil || a.signer != nil || len(a.keys) > 0 }

// HasToken reports whether the built-in token endpoint is on.
func (a *Auth) HasToken() bool { return a.signer != nil }

// Challenge sets the header that tells a client how to prove who it is. scope is
// as in docker's token specification ("repository:NAME:pull"), "" for none; a
// browser is always asked for a password.
func (a *Auth) Challenge(h http.Header, r *http.Request, scope string, browser bool) {
	t := a.cfg.Token
	if browser && a.pass != nil || a.signer == nil && t.Realm == "" {
		h.Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", a.cfg.Realm))
		return
	}
	realm := t.Realm
	if a.signer != nil {
		realm = a.base(r) + "/token"
	}
	text := fmt.Sprintf("Bearer realm=%q,service=%q", realm, t.Service)
	if scope != "" {
		text += fmt.Sprintf(",scope=%q", scope)
	}
	if r.Header.Get("Authorization") != "" {
		text += `,error="insufficient_scope"`
	}
	h.Set("WWW-Authenticate", text)
}

// base returns how clients reach this registry. Host is what this very client
// said, and checked not to break the header it is put into.
func (a *Auth) base(r *http.Request) string {
	if u := a.cfg.Token.URL; u != "" {
		return strings.TrimSuffix(u, "/")
	}
	host := strings.Map(func(c rune) rune {
		if c > ' ' && c < 127 && !strings.ContainsRune("\"\\/?#@<>", c) {
			return c
		}
		return -1
	}, r.Host)
	if r.TLS != nil {
		return "https://" + host
	}
	return "http://" + host
}

// Refusal is what a caller without a right is told: to log in (or to come with
// another token) where that is possible, else that he may not.
func (a *Auth) Refusal(c *Caller) fault.Kind {
	if a.Closed() && (c.User == "" || c.bearer) {
		return fault.Unauthorized
	}
	return fault.Forbidden
}
