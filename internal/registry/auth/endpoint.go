package auth

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	mostScopes  = 64
	longestForm = 64 << 10
)

// ServeToken is the token endpoint: GET as docker's token specification has it,
// with the password in a Basic header, or POST with an OAuth2 password grant.
func (a *Auth) ServeToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	var form url.Values
	var caller *Caller
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		form = r.URL.Query()
		var err error
		if strings.HasPrefix(strings.ToLower(r.Header.Get("Authorization")), "bearer ") {
			tokenError(w, http.StatusBadRequest, "invalid_request", "a token is asked for with a user name and a password")
			return
		}
		if caller, err = a.Identify(r); err != nil {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+a.cfg.Realm+`"`)
			tokenError(w, http.StatusUnauthorized, "invalid_client", err.Error())
			return
		}
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, longestForm)
		if err := r.ParseForm(); err != nil {
			tokenError(w, http.StatusBadRequest, "invalid_request", "the form cannot be read")
			return
		}
		form = r.PostForm
		if g := form.Get("grant_type"); g != "password" {
			tokenError(w, http.StatusBadRequest, "unsupported_grant_type", "only the password grant is offered")
			return
		}
		user := form.Get("username")
		if a.pass == nil || !a.pass.check(user, form.Get("password")) {
			tokenError(w, http.StatusUnauthorized, "invalid_grant", errCredentials.Error())
			return
		}
		caller = a.user(user)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		tokenError(w, http.StatusMethodNotAllowed, "invalid_request", "use GET or POST")
		return
	}
	if s := form.Get("service"); s != "" && s != a.cfg.Token.Service {
		tokenError(w, http.StatusBadRequest, "invalid_request", "this endpoint makes tokens for the service "+a.cfg.Token.Service)
		return
	}
	a.issue(w, caller, form["scope"])
}

func tokenError(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"error": code, "error_description": text,
		"errors": []map[string]string{{"code": "UNAUTHORIZED", "message": text}},
	})
}

// issue grants of what was asked for as much as the caller has.
func (a *Auth) issue(w http.ResponseWriter, c *Caller, asked []string) {
	var scopes []string
	for _, s := range asked {
		scopes = append(scopes, strings.Fields(s)...)
	}
	if len(scopes) > mostScopes {
		tokenError(w, http.StatusBadRequest, "invalid_scope", "too many scopes")
		return
	}
	access := []Access{}
	for _, s := range scopes {
		if granted, ok := grant(c, s); ok {
			access = append(access, granted)
		}
	}
	now := time.Now()
	token, err := a.signer.sign(newClaims(a.issuer(), a.cfg.Token.Service, c.User, access, now, a.cfg.Token.TTL))
	if err != nil {
		tokenError(w, http.StatusInternalServerError, "server_error", "the token cannot be made")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"token": token, "access_token": token,
		"expires_in": int(a.cfg.Token.TTL.Seconds()), "issued_at": now.UTC().Format(time.RFC3339),
	})
}

// grant returns the part of a scope (TYPE:NAME:ACTION,...) that the caller has.
func grant(c *Caller, scope string) (Access, bool) {
	kind, rest, ok := strings.Cut(scope, ":")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || colon < 0 {
		return Access{}, false
	}
	name, actions := rest[:colon], strings.Split(rest[colon+1:], ",")
	if kind == "registry" && name == "catalog" {
		return Access{kind, name, []string{"*"}}, c.Lists()
	}
	if kind, _, _ = strings.Cut(kind, "("); kind != "repository" {
		return Access{}, false
	}
	var want Rights
	for _, action := range actions {
		r, _ := ParseRights([]string{action})
		want |= r
	}
	have := want & c.rights(name)
	return Access{kind, name, have.Names()}, have != 0
}
