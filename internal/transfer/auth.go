package transfer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

const maxTokenBody = 1 << 20 // bytes

// authorize gets what a 401's challenges ask for. The realm is a URL that the
// registry chose, so nothing secret is ever sent there: the request has no
// credentials and follows the same rules for redirects.
func (s *session) authorize(ctx context.Context, challenges []string) error {
	for _, c := range challenges {
		scheme, params := parseChallenge(c)
		if !strings.EqualFold(scheme, "Bearer") || params["realm"] == "" {
			continue
		}
		token, err := s.fetchToken(ctx, params)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.token = "Bearer " + token
		s.mu.Unlock()
		return nil
	}
	return fault.New(fault.Unauthorized, "pull", s.subject(), "the registry wants a user name and a password")
}

func (s *session) fetchToken(ctx context.Context, params map[string]string) (string, error) {
	const op = "get token for"
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return "", fault.New(fault.Invalid, op, s.subject(), "the registry's realm %.200q is no URL", params["realm"])
	}
	if realm.Scheme == "http" && strings.HasPrefix(s.base, "https:") {
		return "", fault.New(fault.Forbidden, op, s.subject(), "the registry sends to %.200q, which has no TLS", params["realm"])
	}
	q := realm.Query()
	if params["service"] != "" {
		q.Set("service", params["service"])
	}
	q.Set("scope", "repository:"+reference.Path(s.name)+":pull")
	realm.RawQuery = q.Encode()
	realm.User = nil

	wait := s.p.c.Backoff
	for attempt := 1; ; attempt++ {
		token, err := s.tryToken(ctx, realm.String())
		if err == nil || !mayPass(err) || attempt >= attemptsAt(err) {
			return token, err
		}
		if err := s.pause(ctx, jitter(wait)); err != nil {
			return "", err
		}
		wait *= 2
	}
}

func (s *session) tryToken(ctx context.Context, target string) (string, error) {
	const op = "get token for"
	res, err := s.send(ctx, target, nil, "")
	if err != nil {
		return "", networkError(op, s.subject(), err)
	}
	defer drop(res)
	if res.StatusCode != http.StatusOK {
		return "", s.statusError(op, "token", res)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxTokenBody))
	if err != nil {
		return "", networkError(op, s.subject(), err)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fault.New(fault.Invalid, op, s.subject(), "the answer is no token: %w", err)
	}
	token := answer.Token
	if token == "" {
		token = answer.AccessToken
	}
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", fault.New(fault.Invalid, op, s.subject(), "the answer holds no token")
	}
	return token, nil
}

// parseChallenge splits a WWW-Authenticate value into scheme and parameters.
func parseChallenge(c string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(c), " ")
	params = map[string]string{}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		key, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		if strings.HasPrefix(value, `"`) {
			var b strings.Builder
			i := 1
			for ; i < len(value) && value[i] != '"'; i++ {
				if value[i] == '\\' && i+1 < len(value) {
					i++
				}
				b.WriteByte(value[i])
			}
			params[strings.ToLower(strings.TrimSpace(key))] = b.String()
			rest = value[min(i+1, len(value)):]
		} else {
			v, after, _ := strings.Cut(value, ",")
			params[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(v)
			rest = after
		}
	}
	return scheme, params
}
