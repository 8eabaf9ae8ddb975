package engine

import (
	"errors"
	"fmt"
	"strings"

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
