package registry

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// corsMethods and corsHeaders are what scripts of an allowed origin may send,
// corsExposed what they may see.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders = "Accept, Authorization, Content-Type, Content-Range, If-None-Match, Range"
	corsExposed = "Docker-Content-Digest, Docker-Distribution-Api-Version, ETag, Link, Location, OCI-Filters-Applied, OCI-Subject, OCI-Tag, Range, WWW-Authenticate"
)

// cors sets the headers that let scripts of allowed origins in, and answers
// preflight requests, which come without credentials.
func (r *Registry) cors(req *request) bool {
	origin := req.Header.Get("Origin")
	if len(r.cfg.Origins) == 0 || origin == "" {
		return false
	}
	h := req.w.Header()
	h.Add("Vary", "Origin")
	if !slices.Contains(r.cfg.Origins, origin) && !slices.Contains(r.cfg.Origins, "*") {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", corsExposed)
	if req.Method != http.MethodOptions {
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "86400")
	req.w.WriteHeader(http.StatusNoContent)
	return true
}

// logAccess writes one line about a request that has ended.
func (r *Registry) logAccess(req *request, took time.Duration, cut bool) {
	log := r.cfg.Access
	if log == nil || !log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		host = req.RemoteAddr
	}
	attrs := []slog.Attr{
		slog.String("method", req.Method), slog.String("path", clip(req.URL.Path)), slog.Int("status", req.w.status),
		slog.String("route", req.route), slog.Int64("sent", req.w.bytes), slog.Int64("received", req.body.bytes),
		slog.Duration("took", took.Round(time.Microsecond)), slog.String("remote", host),
	}
	if req.caller != nil && req.caller.User != "" {
		attrs = append(attrs, slog.String("user", req.caller.User))
	}
	if req.digest != "" && !strings.Contains(req.URL.Path, req.digest.String()) {
		attrs = append(attrs, slog.String("digest", req.digest.String()))
	}
	if agent := req.UserAgent(); agent != "" {
		attrs = append(attrs, slog.String("agent", clip(agent)))
	}
	if cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// clip keeps a client from filling the log.
func clip(s string) string {
	if len(s) > 512 {
		return s[:512] + "..."
	}
	return s
}
