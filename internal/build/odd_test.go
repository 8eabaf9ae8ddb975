package build

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Contexts with what nobody expects in one: nothing hangs, nothing leads out, what
// is copied is copied whole, and the second time everything is found.
func TestOddContexts(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{
		"plain": "p", "out -> /etc/shadow": "", "up -> ../../../etc/shadow": "", "round -> round": "", "d/dots -> ..": "",
		"\xff\xfe": "bytes", "new\nline": "nl", "esc\x1b[31m": "e", "back\\slash": "b", " space ": "s", "-x": "dash", "ünïcödé 😀": "u", "nu\u0301": "combining", "*": "star", "[a": "bracket", "$HOME": "dollar",
		strings.Repeat("l", 255): "long", strings.Repeat(strings.Repeat("n", 200)+"/", 15) + "deep": "deep",
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o640))
	must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "sock"), Net: "unix"})
	must(err)
	defer l.Close()
	must(os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "d/same")))
	f, err := os.Create(filepath.Join(dir, "hole"))
	must(err)
	must(f.Truncate(32 << 20))
	f.Close()
	os.Chmod(filepath.Join(dir, "plain"), 0)

	at := func(r *Request) { r.ContextDir = dir }
	o := h.build("FROM busybox\nCOPY . /n/\n", nil, at)
	h.want(o, map[string]string{
		"n/plain": "0 0:0 p", "n/d/same": "0 0:0 p", "n/out": "-> /etc/shadow", "n/up": "-> ../../../etc/shadow", "n/round": "-> round", "n/d/dots": "-> ..",
		"n/\xff\xfe": "644 0:0 bytes", "n/new\nline": "644 0:0 nl", "n/esc\x1b[31m": "644 0:0 e", "n/back\\slash": "644 0:0 b", "n/ space ": "644 0:0 s", "n/-x": "644 0:0 dash",
		"n/ünïcödé 😀": "644 0:0 u", "n/nu\u0301": "644 0:0 combining", "n/*": "644 0:0 star", "n/[a": "644 0:0 bracket", "n/$HOME": "644 0:0 dollar",
		"n/" + strings.Repeat("l", 255): "644 0:0 long", "n/" + strings.Repeat(strings.Repeat("n", 200)+"/", 15) + "deep": "644 0:0 deep",
		"n/pipe": "640 0:0", "n/null": "600 0:0", "n/sock": "", "n/hole": "644 0:0",
	})
	if again := h.build("FROM busybox\nCOPY . /n/\n", nil, at); again.ran() != "" {
		t.Errorf("the same context is copied again: %s", again.ran())
	}
	writeFile(t, filepath.Join(dir, "esc\x1b[31m"), "other")
	if o := h.build("FROM busybox\nCOPY . /n/\n", nil, at); strings.ContainsRune(o.why(), 0x1b) || !strings.Contains(o.why(), `"esc\x1b[31m" changed`) {
		t.Errorf("it tells %q", o.why())
	}
	for text, says := range map[string]string{
		"COPY sock /x":             "socket",
		"ADD [\"sock\", \"/x\"]":   "socket",
		"COPY round /x":            "symbolic links",
		"COPY out /x":              "not found",
		"COPY up /x":               "not found",
		"COPY d/dots/../nosuch /x": "not found",
		"COPY plain/below /x":      "not found",
	} {
		if o := h.try(Request{Text: []byte("FROM busybox\n" + text + "\n"), ContextDir: dir}); o.err == nil || !strings.Contains(o.err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, o.err, says)
		}
	}
	h.want(h.build("FROM busybox\nADD pipe /x\nCOPY pipe null s[o]ck /y/\n", nil, at), map[string]string{"y/sock": "", "x": "640 0:0", "y/pipe": "640 0:0", "y/null": "600 0:0"})

	// A path that is longer than the kernel takes is an error in words.
	deep := dir
	for range 25 {
		deep = filepath.Join(deep, strings.Repeat("q", 150))
	}
	must(os.MkdirAll(deep, 0o755))
	fd, err := unix.Open(deep, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(err)
	defer unix.Close(fd)
	for _, p := range []string{strings.Repeat("q", 150), strings.Repeat("q", 150) + "/" + strings.Repeat("q", 150), strings.Repeat("q", 150) + "/" + strings.Repeat("q", 150) + "/" + strings.Repeat("q", 150)} {
		must(unix.Mkdirat(fd, p, 0o755))
	}
	if o := h.try(Request{Text: []byte("FROM busybox\nCOPY . /n/\n"), ContextDir: dir}); o.err != nil && !strings.Contains(o.err.Error(), "name too long") {
		t.Errorf("a path of more than 4096 bytes: %v", o.err)
	}
	h.clean()
}
