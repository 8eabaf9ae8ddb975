package terminal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/creack/pty"
)

func TestParseDetachKeys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-a": "\x01", "a,b,c": "abc", "CTRL-Z,x": "\x1ax",
		"ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-_": "\x1f", "ctrl-\\": "\x1c"} {
		if got, err := ParseDetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ab", ",", "ctrl-aa"} {
		if got, err := ParseDetachKeys(in); err == nil {
			t.Errorf("%q was read as %q", in, got)
		}
	}
}

func TestDetachReader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keys, in, want string
		detached       bool
	}{
		{"\x10\x11", "abc", "abc", false},
		{"\x10\x11", "a\x10\x11b", "a", true},
		{"\x10\x11", "a\x10b\x10\x10\x11c", "a\x10b\x10", true},
		{"\x10\x11", "a\x10", "a\x10", false},
		{"aab", "aaab", "a", true},
		{"abac", "ababac", "ab", true},
		{"x", "x", "", true},
		{"", "anything", "anything", false},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader} {
			var out bytes.Buffer
			_, err := io.Copy(&out, struct{ io.Reader }{NewDetachReader(wrap(strings.NewReader(c.in)), []byte(c.keys))})
			if out.String() != c.want || errors.Is(err, ErrDetach) != c.detached {
				t.Errorf("%s, keys %q, input %q: got %q, %v; want %q, detached %v", name, c.keys, c.in, out.String(), err, c.want, c.detached)
			}
		}
	}
}

func FuzzDetachReader(f *testing.F) {
	f.Add([]byte("ab"), []byte("xaby"))
	f.Fuzz(func(t *testing.T, keys, in []byte) {
		var out bytes.Buffer
		_, err := io.Copy(&out, struct{ io.Reader }{NewDetachReader(bytes.NewReader(in), keys)})
		at := bytes.Index(in, keys)
		if len(keys) == 0 {
			at = -1
		}
		want := in
		if at >= 0 {
			want = in[:at]
		}
		if !bytes.Equal(out.Bytes(), want) || errors.Is(err, ErrDetach) != (at >= 0) {
			t.Errorf("keys %q, input %q: got %q, %v", keys, in, out.Bytes(), err)
		}
	})
}

func TestRawPassesEveryKeyAndIsUndone(t *testing.T) {
	t.Parallel()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer master.Close()
	defer slave.Close()
	restore, err := Raw(slave)
	if err != nil {
		t.Fatal(err)
	}
	keys := "\x03\x04\x1a\r"
	if _, err := master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(keys))
	if _, err := io.ReadFull(slave, got); err != nil || string(got) != keys {
		t.Errorf("got %q, %v", got, err)
	}
	restore()
	restore()
	if _, err := master.WriteString("line\r"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := slave.Read(buf); err != nil || string(buf[:n]) != "line\n" {
		t.Errorf("after restoring: %q, %v", buf[:n], err)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer master.Close()
	defer slave.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 111}); err != nil {
		t.Fatal(err)
	}
	if rows, columns, ok := Size(slave); !ok || rows != 33 || columns != 111 || !Is(slave) {
		t.Errorf("%d rows, %d columns, %v", rows, columns, ok)
	}
	null, _ := os.Open(os.DevNull)
	defer null.Close()
	if _, _, ok := Size(null); ok || Is(null) || Is(nil) {
		t.Error("/dev/null is not a terminal")
	}
}
