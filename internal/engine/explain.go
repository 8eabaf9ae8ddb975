package engine

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

// execError words the failure of a user's program so that people see the cause
// and programs which look for runc's words find them.
func execError(x *runtime.ExecError) error {
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

// explain returns the exit code that a failure to begin a program has, otherwise unless
// the program is at fault, and an error of the kind that clients expect: what is wrong
// with the user's program is the request's fault, not the engine's.
func explain(err error, op string, otherwise int) (code int, cause error) {
	var exec *runtime.ExecError
	if errors.As(err, &exec) {
		return exec.Code, &fault.Error{Kind: fault.Invalid, Op: op, Err: execError(exec)}
	}
	return otherwise, err
}

// explainExec is explain for a command inside of a container.
func explainExec(err error) (code int, cause error) { return explain(err, "exec failed", 126) }
