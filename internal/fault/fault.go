// Package fault is the error vocabulary of the house: every error that reaches
// a user says which operation failed, on what, why, and what to do next, and
// carries a kind from which the API picks a status code and the command line an
// exit code. It exists so that no layer has to guess from an error's text.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Kind classifies an error by what the caller can do about it.
type Kind uint8

// The kinds. The zero value is Internal: an error nobody classified is ours.
const (
	Internal     Kind = iota // a defect or an unexpected state of the host
	Invalid                  // the request can never succeed as written
	NotFound                 // the named thing does not exist
	Conflict                 // the name is taken, or the state forbids it now
	Unsupported              // understood, and not offered by this engine
	Forbidden                // refused by policy or by the kernel
	Unauthorized             // credentials are missing or wrong
	Unavailable              // a peer (registry, monitor) cannot be reached now
	Exhausted                // disk, addresses, ports or another bounded thing ran out
	NotModified              // the wanted state already holds
	Canceled                 // the caller went away
)

var kindNames = [...]string{
	"internal", "invalid", "not found", "conflict", "unsupported", "forbidden",
	"unauthorized", "unavailable", "exhausted", "not modified", "canceled",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Error is a classified error. Op is a verb phrase ("start container"), Subject
// what it was done to (a name, a path, a field), Err the cause, Hint one
// sentence on what to do next. All but Kind may be empty.
type Error struct {
	Kind    Kind
	Op      string
	Subject string
	Err     error
	Hint    string
}

// Error joins the parts as "op subject: cause (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Subject)
	}
	if e.Err != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	} else if b.Len() == 0 {
		b.WriteString(e.Kind.String())
	}
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of a kind with a formatted cause; %w wraps.
func New(kind Kind, op, subject, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Subject: subject, Err: fmt.Errorf(format, args...)}
}

// WithHint returns a copy of e that tells what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Wrap adds operation and subject to err and keeps its kind. It returns nil for
// a nil err.
func Wrap(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Op: op, Subject: subject, Err: err}
}

// KindOf returns the kind of the outermost *Error in err's chain; a cancelled
// context is Canceled, no room on the disk Exhausted, a file system that is
// read-only Forbidden, everything else Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Canceled
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ENOSPC, syscall.EDQUOT:
			return Exhausted
		case syscall.EROFS:
			return Forbidden
		}
	}
	return Internal
}

// Is reports whether err is of the given kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
