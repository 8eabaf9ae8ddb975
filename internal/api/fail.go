package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/common"
)

// statusClientGone is nginx's number for a request whose client went away; only
// the log ever sees it.
const statusClientGone = 499

var errDefect = fault.New(fault.Internal, "", "", "internal error: the request hit a defect in the engine; its log has the details")

// statusOf maps what an error means to the status docker answers with.
func statusOf(kind fault.Kind) int {
	switch kind {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Exhausted:
		return http.StatusInsufficientStorage
	case fault.NotModified:
		return http.StatusNotModified
	case fault.Canceled:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// exitCodeHeader carries the exit status of a program that could not be
// executed (126 or 127), which clients otherwise guess from the words.
const exitCodeHeader = "Berth-Exit-Code"

// exitCode finds that status in an error.
func exitCode(err error) (int, bool) {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode(), true
	}
	return 0, false
}

// tooLarge marks a body over its limit; it has a status of its own.
type tooLarge struct{ cause error }

// Error returns the cause's words.
func (e tooLarge) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e tooLarge) Unwrap() error { return e.cause }

// fail answers with an error, or ends a started answer.
func (x *exchange) fail(err error) {
	status := statusOf(fault.KindOf(err))
	if _, ok := err.(tooLarge); ok {
		status = http.StatusRequestEntityTooLarge
	}
	logged := status
	if x.ctx().Err() != nil {
		logged = statusClientGone
	}
	x.logFailure(logged, err)
	x.api.failures.count(logged)
	if code, ok := exitCode(err); ok && !x.started {
		x.Header().Set(exitCodeHeader, strconv.Itoa(code))
	}
	// A client that has only closed its half still reads: it must not take
	// silence, which the server would turn into 200, for success.
	switch {
	case x.started:
		x.abort()
	case status == http.StatusNotModified:
		x.WriteHeader(status)
	case x.version < oldest:
		// Clients this old print the body as it is.
		http.Error(x, err.Error(), status)
	default:
		_ = x.reply(status, &common.ErrorResponse{Message: err.Error()})
	}
}

func (x *exchange) logFailure(status int, err error) {
	level := slog.LevelDebug
	if status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	if log := x.api.log; log.Enabled(context.Background(), level) {
		log.Log(context.Background(), level, "request failed", "method", x.r.Method, "path", x.r.URL.Path, "status", status, "error", err)
	}
}

// notFound answers for paths and methods which the API does not have. What browsers
// ask before a request is answered for whatever path, as docker does.
func notFound(x *exchange) error {
	if x.r.Method == http.MethodOptions {
		return x.done(http.StatusOK)
	}
	return fault.New(fault.NotFound, "", "", "page not found")
}
