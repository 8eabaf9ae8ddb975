package proto

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"berth/internal/fault"
	"berth/internal/runtime"

	"golang.org/x/sys/unix"
)

func connPair(t testing.TB) (*Conn, *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*Conn
	for i := range conns {
		if conns[i], err = NewConn(fds[i], "test"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

func TestFramesCarryBodiesAndDescriptors(t *testing.T) {
	a, b := connPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	frames := []*Frame{
		{Kind: KindHello},
		{Kind: KindStart, Seq: 7, Head: []byte(`{"id":"x"}`), Blob: bytes.Repeat([]byte("b"), 3<<20)},
		{Kind: KindAttach, Seq: 8, Head: []byte(`{}`), Files: []*os.File{w}},
		{Kind: KindAttach, Seq: 9, Head: []byte(`{}`), Files: []*os.File{r, w}},
		{Kind: KindEvent, Head: bytes.Repeat([]byte("h"), 5000)},
	}
	go func() {
		for _, f := range frames {
			if err := a.Send(f); err != nil {
				t.Error(err)
			}
		}
		_ = a.Close()
	}()
	for _, want := range frames {
		got, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != want.Kind || got.Seq != want.Seq || !bytes.Equal(got.Head, want.Head) || !bytes.Equal(got.Blob, want.Blob) || len(got.FDs) != len(want.Files) {
			t.Errorf("frame %d of kind %d: %d and %d bytes, %d descriptors", got.Seq, got.Kind, len(got.Head), len(got.Blob), len(got.FDs))
		}
		if got.Seq == 8 {
			if _, err := unix.Write(got.FDs[0], []byte("passed")); err != nil {
				t.Error(err)
			}
			text := make([]byte, 6)
			if _, err := io.ReadFull(r, text); err != nil || string(text) != "passed" {
				t.Errorf("through the passed descriptor: %q, %v", text, err)
			}
		}
		got.CloseFDs()
	}
	if _, err := b.Receive(); err != io.EOF {
		t.Errorf("after the last frame: %v, want EOF", err)
	}
}

func TestHostileFramesAreRefused(t *testing.T) {
	for name, header := range map[string]string{
		"too long":              "\xff\xff\xff\x7f\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00",
		"too many descriptors":  "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\xff\xff",
		"descriptors that lack": "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x02\x00",
	} {
		a, b := connPair(t)
		if _, err := unix.Write(FD(a.file), []byte(header)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Receive(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := connPair(t)
	_, _ = unix.Write(FD(a.file), []byte("cut"))
	_ = a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame cut short: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00{}x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, b := connPair(t)
		go func() {
			_, _ = a.file.Write(text)
			_ = a.Close()
		}()
		for {
			frame, err := b.Receive()
			if err != nil {
				return
			}
			if len(frame.Head)+len(frame.Blob)+headerSize > len(text) {
				t.Fatalf("%d bytes out of %d", len(frame.Head)+len(frame.Blob), len(text))
			}
		}
	})
}

func TestErrorsKeepTheirKind(t *testing.T) {
	cause := &runtime.ExecError{Path: "/bin/x", Err: errors.New("no such file"), Hint: "install it", Code: 127}
	for _, err := range []error{
		fault.New(fault.Conflict, "start container", "abc", "it is running").WithHint("stop it"),
		fault.Wrap("start container", "abc", cause),
		cause,
		errors.New("plain"),
		&fault.Error{Kind: fault.Exhausted},
	} {
		got := DecodeError(EncodeError(err))
		if fault.KindOf(got) != fault.KindOf(err) || got.Error() != err.Error() {
			t.Errorf("%v (%v) arrived as %v (%v)", err, fault.KindOf(err), got, fault.KindOf(got))
		}
		var exec, was *runtime.ExecError
		if errors.As(err, &was) && (!errors.As(got, &exec) || exec.Code != was.Code || exec.Path != was.Path || exec.Hint != was.Hint) {
			t.Errorf("%v lost its cause: %v", err, got)
		}
	}
	if err := DecodeError([]byte("nonsense")); err == nil || !strings.Contains(err.Error(), "decode") {
		t.Errorf("nonsense: %v", err)
	}
}
