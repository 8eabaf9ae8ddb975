package why

import (
	"fmt"
	"strings"
	"testing"

	"berth/internal/runtime"
)

func TestExecErrorsKeepTheWordsThatClientsLookFor(t *testing.T) {
	for _, tt := range []struct {
		err  *runtime.ExecError
		want string
	}{
		{&runtime.ExecError{Path: "nope", Code: 127, Err: fmt.Errorf("not found")}, notInPath},
		{&runtime.ExecError{Path: "/nope", Code: 127, Err: fmt.Errorf("it is not there")}, notThere},
		{&runtime.ExecError{Path: "/etc", Code: 126, Err: fmt.Errorf("is a directory")}, "is a directory"},
		{&runtime.ExecError{Path: "x", Code: 127, Err: fmt.Errorf("executable file not found in $PATH")}, notInPath},
	} {
		text := Exec(tt.err).Error()
		if strings.Count(text, tt.want) != 1 {
			t.Errorf("%q", text)
		}
	}
}
