package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"berth/internal/fault"
)

// What an archive can do wrong. Errors of Apply and of Reader match one of
// these with errors.Is, are of kind fault.Invalid and name the entry.
var (
	ErrTraversal  = errors.New("leads out of the archive's tree")
	ErrWhiteout   = errors.New("malformed whiteout")
	ErrReserved   = errors.New("reserved for the engine's own bookkeeping")
	ErrDevice     = errors.New("impossible device")
	ErrLink       = errors.New("link to nothing")
	ErrField      = errors.New("impossible value")
	ErrEntryType  = errors.New("unknown entry type")
	ErrTooLarge   = errors.New("larger than the limit")
	ErrBomb       = errors.New("compressed beyond belief")
	ErrCorrupt    = errors.New("damaged archive")
	ErrDigest     = errors.New("digest mismatch")
	ErrCompressor = errors.New("unsupported compression")
)

// entryError names an entry of an archive. Names come from hostile archives, so
// they are quoted and cut.
func entryError(name string, err error, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return &fault.Error{Kind: fault.Invalid, Op: "unpack entry", Subject: quote(name), Err: fmt.Errorf("%s: %w", text, err)}
}

// sysError is an entry's failure in the file system: a full disk is
// fault.Exhausted, what the archive caused is fault.Invalid.
func sysError(name, what string, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	e := &fault.Error{Op: "unpack entry", Subject: quote(name), Err: fmt.Errorf("%s: %w", what, err)}
	switch {
	case isFull(err):
		e.Kind, e.Hint = fault.Exhausted, fullHint
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP),
		errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EMLINK):
		e.Kind, e.Err = fault.Invalid, fmt.Errorf("%s: %w: %w", what, ErrField, err)
	case errors.Is(err, fs.ErrPermission):
		e.Kind = fault.Forbidden
	}
	return e
}

const fullHint = "free some disk space, for example by removing images that are not in use"

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// streamError classifies what a reader of an archive returned. after names the
// last entry that was whole.
func streamError(after string, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	where := "at its beginning"
	if after != "" {
		where = "after entry " + quote(after)
	}
	kind := fault.KindOf(err)
	switch {
	case kind == fault.Canceled:
		return &fault.Error{Kind: kind, Op: "read archive", Err: err}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &fault.Error{Kind: fault.Invalid, Op: "read archive", Err: fmt.Errorf("%w: it ends early, %s", ErrCorrupt, where)}
	case isFull(err):
		return &fault.Error{Kind: fault.Exhausted, Op: "read archive", Err: err, Hint: fullHint}
	}
	return &fault.Error{Kind: fault.Invalid, Op: "read archive", Err: fmt.Errorf("%w %s: %w", ErrCorrupt, where, err)}
}

func quote(name string) string {
	const most = 200
	if len(name) > most {
		return fmt.Sprintf("%q... (%d bytes)", name[:most], len(name))
	}
	return fmt.Sprintf("%q", name)
}
