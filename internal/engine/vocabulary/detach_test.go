package vocabulary

import (
	"bytes"
	"testing"
)

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string][]byte{
		"": {16, 17}, "ctrl-p,ctrl-q": {16, 17}, "a": {'a'}, "a,b,ctrl-@": {'a', 'b', 0}, "ctrl-[": {27}, "ctrl-_": {31}, ",": {','}, "a,,": {'a', ','},
	} {
		if got, err := DetachKeys(in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"ctrl-A", "ctrl-", "ab", "ctrl-p;ctrl-q", "a,"} {
		if got, err := DetachKeys(in); err == nil {
			t.Errorf("%q became %v", in, got)
		}
	}
}
