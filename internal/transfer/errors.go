package transfer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

const maxErrorBody = 64 << 10 // bytes of an error document that are read

// mayPass reports whether the same request can succeed later.
func mayPass(err error) bool { return fault.Is(err, fault.Unavailable) }

// attemptsAt returns how often it is tried when this is the error: a name that
// does not exist, or a machine that refuses, seldom changes within seconds.
func attemptsAt(err error) int {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return 1
	case errors.Is(err, syscall.ECONNREFUSED):
		return 2
	}
	return attempts
}

// networkError classifies a failure to get an answer at all.
func networkError(ctx context.Context, op, subject string, err error) error {
	if ctx.Err() != nil { // a time-out of the transport's looks the same
		return &fault.Error{Kind: fault.Canceled, Op: op, Subject: subject, Err: ctx.Err()}
	}
	e := &fault.Error{Kind: fault.Unavailable, Op: op, Subject: subject, Err: withoutQuery(err)}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var uerr *url.Error
	switch {
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		e.Kind = fault.Forbidden
		e.Hint = "the registry's certificate is not trusted here: install its CA on this machine"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Kind = fault.Forbidden
		e.Hint = "the registry has no TLS: list it as insecure if that is meant"
	case errors.As(err, &uerr) && (strings.Contains(err.Error(), "redirect")):
		e.Kind = fault.Forbidden
	}
	return e
}

// withoutQuery takes the query out of the URL in an error: it is long and none
// of a reader's business.
func withoutQuery(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	bare, _, cut := strings.Cut(u.URL, "?")
	if !cut {
		return err
	}
	return &url.Error{Op: u.Op, URL: bare, Err: u.Err}
}

// statusError says what an answer means. It reads the body but does not close
// it.
func (s *session) statusError(op, path string, res *http.Response) error {
	detail := errorDetail(res)
	e := &fault.Error{Op: op, Subject: s.subject(), Err: fmt.Errorf("%s%s", res.Status, detail)}
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		e.Kind = fault.Unauthorized
		if code == http.StatusForbidden {
			e.Kind = fault.Forbidden
		} else {
			e.Hint = "try `berth login " + reference.Domain(s.name) + "`"
		}
		e.Err = fmt.Errorf("%s access denied for %s, repository does not exist or may require credentials: %w", s.action, s.subject(), e.Err)
	case code == http.StatusNotFound:
		e.Kind = fault.NotFound
		if what, ref, _ := strings.Cut(path, "/"); what == "manifests" && s.action == actionPull {
			sep := ":"
			if strings.Contains(ref, ":") {
				sep = "@"
			}
			e.Err = fmt.Errorf("manifest for %s%s%s not found%s", s.subject(), sep, ref, detail)
		}
	case code == http.StatusTooManyRequests:
		e.Kind = fault.Unavailable
		e.Hint = "the registry limits how much is pulled: wait, or pull with credentials"
	case code == http.StatusRequestTimeout, code >= 500:
		e.Kind = fault.Unavailable
	default:
		e.Kind = fault.Invalid
	}
	return e
}

// errorDetail returns what a registry's error document says, in front of it a
// colon.
func errorDetail(res *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	e := doc.Errors[0]
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	return fmt.Sprintf(": %.100s: %.300s", code, e.Message)
}

// diskError classifies a failure to write here.
func diskError(op, subject string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &fault.Error{Kind: fault.Exhausted, Op: op, Subject: subject, Err: err, Hint: "free some disk space, for example with `berth rmi`"}
	}
	return fault.Wrap(op, subject, err)
}
