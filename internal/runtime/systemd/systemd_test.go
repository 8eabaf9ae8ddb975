package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"berth/internal/runtime/cgroup"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseUnit(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "/system.slice/berth-id.scope",
		"::":                       "/system.slice/berth-id.scope",
		"machine.slice:libpod:abc": "/machine.slice/libpod-abc.scope",
		"a-b-c.slice:x:y":          "/a.slice/a-b.slice/a-b-c.slice/x-y.scope",
		"-.slice:x:y":              "/x-y.scope",
		"user.slice::y":            "/user.slice/y.scope",
		"/plain/path":              "",
		"notaslice:x:y":            "",
		"../x.slice:x:y":           "",
		"a.slice:x:../y":           "",
		"a.slice:x:y z":            "",
	} {
		u, err := ParseUnit(in, "id")
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "linux.cgroupsPath") {
				t.Errorf("%q: %v, %v", in, u, err)
			}
			continue
		}
		if err != nil || u.Path() != want {
			t.Errorf("%q: %q, %v, want %q", in, u.Path(), err, want)
		}
	}
}

// reader decodes values by their signature, which is what makes it independent of
// the encoder: it knows nothing of calls or properties.
type reader struct {
	t  *testing.T
	b  []byte
	at int
}

func (r *reader) align(n int) {
	for ; r.at%n != 0; r.at++ {
		if r.b[r.at] != 0 {
			r.t.Fatalf("padding is not zero at %d", r.at)
		}
	}
}

// value reads one value and returns what is left of the signature.
func (r *reader) value(sig string) (any, string) {
	le := binary.LittleEndian
	switch sig[0] {
	case 'u', 'b':
		r.align(4)
		v := le.Uint32(r.b[r.at:])
		r.at += 4
		return v, sig[1:]
	case 't':
		r.align(8)
		v := le.Uint64(r.b[r.at:])
		r.at += 8
		return v, sig[1:]
	case 'y':
		r.at++
		return r.b[r.at-1], sig[1:]
	case 's', 'o', 'g':
		n := int(r.b[r.at])
		if sig[0] == 'g' {
			r.at++
		} else {
			r.align(4)
			n = int(le.Uint32(r.b[r.at:]))
			r.at += 4
		}
		v := string(r.b[r.at : r.at+n])
		if r.b[r.at+n] != 0 {
			r.t.Fatal("a string is not closed by a zero byte")
		}
		r.at += n + 1
		return v, sig[1:]
	case 'v':
		inner, _ := r.value("g")
		v, rest := r.value(inner.(string))
		if rest != "" {
			r.t.Fatalf("a variant of %s", inner)
		}
		return v, sig[1:]
	case '(':
		r.align(8)
		var list []any
		rest := sig[1:]
		for rest[0] != ')' {
			var v any
			v, rest = r.value(rest)
			list = append(list, v)
		}
		return list, rest[1:]
	case 'a':
		r.align(4)
		n := int(le.Uint32(r.b[r.at:]))
		r.at += 4
		r.align(map[byte]int{'(': 8, 't': 8, 'u': 4, 's': 4}[sig[1]])
		list, end := []any{}, r.at+n
		rest := skip(sig[1:])
		for r.at < end {
			v, _ := r.value(sig[1:])
			list = append(list, v)
		}
		if r.at != end {
			r.t.Fatalf("an array of %d bytes ends at %d", end, r.at)
		}
		return list, rest
	}
	r.t.Fatalf("signature %q", sig)
	return nil, ""
}

// skip returns a signature without its first complete type.
func skip(sig string) string {
	switch sig[0] {
	case 'a':
		return skip(sig[1:])
	case '(':
		depth := 0
		for i, c := range sig {
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth == 0 {
				return sig[i+1:]
			}
		}
	}
	return sig[1:]
}

// decode reads a whole message: its header fields by number, and its arguments.
func decode(t *testing.T, b []byte) (fields map[byte]any, args []any) {
	t.Helper()
	r := &reader{t: t, b: b, at: 12}
	list, _ := r.value("a(yv)")
	fields = map[byte]any{}
	for _, f := range list.([]any) {
		fields[f.([]any)[0].(byte)] = f.([]any)[1]
	}
	r.align(8)
	if size := binary.LittleEndian.Uint32(b[4:]); r.at+int(size) != len(b) {
		t.Fatalf("a body of %d bytes from %d on in %d", size, r.at, len(b))
	}
	r.b, r.at = b[r.at:], 0
	for sig, _ := fields[fieldSignature].(string); sig != ""; {
		var v any
		v, sig = r.value(sig)
		args = append(args, v)
	}
	return fields, args
}

// serve is a service manager that gets one call and answers it.
func serve(t *testing.T, refuse string) (socket string, got chan []byte) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got = make(chan []byte, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		if b, _ := r.ReadByte(); b != 0 {
			return
		}
		if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "AUTH EXTERNAL ") {
			return
		}
		if line, _ := r.ReadString('\n'); line != "BEGIN\r\n" {
			return
		}
		io.WriteString(c, "OK 0123456789abcdef\r\n")
		buf := make([]byte, 8192)
		n, _ := r.Read(buf)
		got <- buf[:n]
		serial := binary.LittleEndian.Uint32(buf[8:])
		c.Write(answer(4, 0, "")) // a signal comes first
		if refuse != "" {
			c.Write(answer(msgError, serial, refuse))
			return
		}
		c.Write(answer(msgReturn, serial, ""))
	}()
	return socket, got
}

// answer encodes a message of the service manager.
func answer(typ byte, serial uint32, text string) []byte {
	var h body
	h.b = append(h.b, 'l', typ, 1, 1)
	var b body
	if text != "" {
		b.str(text)
	}
	h.uint32(uint32(len(b.b)))
	h.uint32(77)
	h.array(8, func() {
		h.b = append(h.b, fieldReplySerial)
		h.signature("u")
		h.uint32(serial)
		h.align(8)
		h.b = append(h.b, 7) // sender
		h.signature("s")
		h.str(":1.0")
		if text != "" {
			h.align(8)
			h.b = append(h.b, fieldErrorName)
			h.signature("s")
			h.str("org.x.Refused")
			h.align(8)
			h.b = append(h.b, fieldSignature)
			h.signature("g")
			h.signature("s")
		}
	})
	h.align(8)
	return append(h.b, b.b...)
}

// manager puts a socket in the place of the service manager's.
func manager(t *testing.T, socket string) {
	old := sockets
	sockets = []string{socket}
	t.Cleanup(func() { sockets = old })
}

func TestCallIsWellFormed(t *testing.T) {
	socket, got := serve(t, "")
	manager(t, socket)
	u := Unit{Name: "berth-x.scope", Slice: "a.slice"}
	if err := u.Set([]Property{{"MemoryMax", uint64(5)}, {"Delegate", true}, {"Description", "text"}, {"PIDs", []uint32{1, 2, 3}}}); err != nil {
		t.Fatal(err)
	}
	fields, args := decode(t, <-got)
	if fields[fieldMember] != "SetUnitProperties" || fields[fieldPath] != "/org/freedesktop/systemd1" || fields[fieldInterface] != "org.freedesktop.systemd1.Manager" {
		t.Errorf("header: %v", fields)
	}
	want := []any{"berth-x.scope", uint32(1), []any{
		[]any{"MemoryMax", uint64(5)}, []any{"Delegate", uint32(1)}, []any{"Description", "text"},
		[]any{"PIDs", []any{uint32(1), uint32(2), uint32(3)}},
	}}
	if !reflect.DeepEqual(args, want) {
		t.Errorf("arguments: %v", args)
	}
}

func TestRefusalIsTold(t *testing.T) {
	socket, got := serve(t, "it does not want to")
	manager(t, socket)
	err := Unit{Name: "x.scope", Slice: "a.slice"}.Start(os.Getpid(), nil)
	if err == nil || !strings.Contains(err.Error(), "it does not want to") {
		t.Errorf("got %v", err)
	}
	fields, args := decode(t, <-got)
	if fields[fieldMember] != "StartTransientUnit" || len(args) != 4 || args[1] != "replace" {
		t.Errorf("%v %v", fields, args)
	}
	manager(t, filepath.Join(t.TempDir(), "nobody"))
	if err := (Unit{Name: "x.scope"}).Start(1, nil); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestProperties(t *testing.T) {
	limit, swap, quota, shares, pids := int64(100), int64(300), int64(25_000), uint64(1024), int64(-1)
	got := map[string]any{}
	for _, p := range Properties(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap},
		CPU:    &specs.LinuxCPU{Quota: &quota, Shares: &shares},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}, cgroup.Weight) {
		got[p.Name] = p.Value
	}
	want := map[string]any{"MemoryMax": uint64(100), "MemorySwapMax": uint64(200), "CPUQuotaPerSecUSec": uint64(250_000), "CPUWeight": uint64(100), "TasksMax": ^uint64(0)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(message(1, "/p", "i.f", "m", "d", "s", []byte("\x01\x00\x00\x00a\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &conn{r: bufio.NewReader(bytes.NewReader(b))}
		for {
			if _, _, _, err := c.read(); err != nil {
				return
			}
		}
	})
}
