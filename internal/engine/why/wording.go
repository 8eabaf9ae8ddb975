package why

import (
	"errors"
	"fmt"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime"
)

// Fragments of runc's messages which clients look for to tell causes apart.
const (
	notInPath  = "executable file not found in $PATH"
	notThere   = "no such file or directory"
	notAllowed = "permission denied"
)

// Exec words the failure of a user's program so that people see the cause
// and programs which look for runc's words find them.
func Exec(x *runtime.ExecError) error {
	text := x.Error()
	known := strings.Contains(text, notInPath) || strings.Contains(text, notThere) || strings.Contains(text, notAllowed)
	if known {
		return errors.New(text)
	}
	if x.Code != 127 {
		return errors.New(text)
	}
	if !strings.Contains(x.Path, "/") {
		return fmt.Errorf("%s: %s", text, notInPath)
	}
	return fmt.Errorf("%s: %s", text, notThere)
}

// StartFailed returns the exit code of a container that did not start, and an error of
// the kind that clients expect: what is wrong with the user's program is the request's
// fault, not the engine's.
func StartFailed(err error) (code int, cause error) {
	return failed(err, "failed to start container", 128)
}

// ExecFailed is StartFailed for a command inside of a container.
func ExecFailed(err error) (code int, cause error) { return failed(err, "exec failed", 126) }

// failed is what both have in common; otherwise is the code unless the program is at
// fault.
func failed(err error, op string, otherwise int) (code int, cause error) {
	var exec *runtime.ExecError
	if errors.As(err, &exec) {
		return exec.Code, &fault.Error{Kind: fault.Invalid, Op: op, Err: Exec(exec)}
	}
	return otherwise, err
}
