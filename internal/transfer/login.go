package transfer

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

// Login tries credentials at the registry that auth.ServerAddress names ("" is
// Docker Hub), as docker's /auth does. When the registry gives an identity
// token, that is to be kept instead of the password.
func (c *Client) Login(ctx context.Context, auth Auth) (identityToken, status string, err error) {
	host, err := serverHost(auth.ServerAddress)
	if err != nil {
		return "", "", err
	}
	named, err := reference.ParseNormalizedNamed(host + "/login/check")
	if err != nil || reference.Domain(named) != host {
		return "", "", fault.New(fault.Invalid, "log in to", auth.ServerAddress, "want a host[:port]")
	}
	s, err := c.open(ctx, named, actionLogin, auth)
	if err != nil {
		return "", "", err
	}
	e := s.origin()
	e.auth.offline = e.auth.creds.identity == ""
	target := e.base + "/v2/"
	res, err := s.do(ctx, request{op: "log in to", url: target, want: []int{http.StatusOK}})
	if err != nil {
		return "", "", loginError(target, err)
	}
	drop(res.Response)
	e.auth.mu.Lock()
	defer e.auth.mu.Unlock()
	return e.auth.fresh, "Login Succeeded", nil
}

// loginError says in docker's words what a registry answered.
func loginError(target string, err error) error {
	if fault.Is(err, fault.Unauthorized) {
		return fault.New(fault.Unauthorized, "Get", strconv.Quote(target), "unauthorized: incorrect username or password")
	}
	return fault.Wrap("login attempt to", target, err)
}

// serverHost returns the registry that a server address means; docker's clients
// write Hub's as a URL with a path.
func serverHost(address string) (string, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "" && address == "" {
		host = dockerHub
	}
	if host == "" || strings.ContainsAny(host, "@?# ") {
		return "", fault.New(fault.Invalid, "log in to", address, "want a host[:port]")
	}
	return hubName(host), nil
}
