package runtime

import "fmt"

// ExecError says why the user's program could not be executed. Code is what a
// shell would return: 127 when the program does not exist, 126 otherwise.
type ExecError struct {
	Path string // as the user wrote it
	Err  error  // the cause
	Hint string // what to do next; may be empty
	Code int    // 126 or 127
}

// Error reads "exec <path>: <cause> (<hint>)".
func (e *ExecError) Error() string {
	if e.Hint != "" {
		return fmt.Sprintf("exec %q: %v (%s)", e.Path, e.Err, e.Hint)
	}
	return fmt.Sprintf("exec %q: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Err }
