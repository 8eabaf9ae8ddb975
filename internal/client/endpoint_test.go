package client

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/fault"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in     string
		secure bool
		want   string // "" means refused
	}{
		{"unix:///run/berth/berth.sock", false, "unix:///run/berth/berth.sock"},
		{"/run/x.sock", false, "unix:///run/x.sock"},
		{"unix://relative", false, ""},
		{"tcp://10.0.0.1:1234", false, "tcp://10.0.0.1:1234"},
		{"tcp://box", false, "tcp://box:2375"},
		{"tcp://box", true, "tcp://box:2376"},
		{"tcp://[::1]", true, "tcp://[::1]:2376"},
		{"https://box", false, "tcp://box:2376"},
		{"tcp://box:2375/path", false, ""},
		{"ssh://me@box:22", false, "ssh://me@box:22"},
		{"ssh://box/run/user/1/x.sock", false, "ssh://box/run/user/1/x.sock"},
		{"ssh://me:secret@box", false, ""},
		{"ssh://-oProxyCommand=touch/x", false, ""},
		{"ssh://", false, ""},
		{"box:2375", false, ""},
		{"npipe:////./pipe/x", false, ""},
	} {
		e, err := ParseEndpoint(c.in, c.secure)
		switch {
		case c.want == "" && (err == nil || !fault.Is(err, fault.Invalid)):
			t.Errorf("%s: got %v, %v; want a refusal", c.in, e, err)
		case c.want != "" && (err != nil || e.String() != c.want):
			t.Errorf("%s: got %v, %v; want %s", c.in, e, err, c.want)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"unix:///a", "tcp://[::1]:2", "ssh://u@h:1/p", "ssh://h?x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s, false)
		if err != nil {
			return
		}
		for _, arg := range []string{e.Address, e.User} {
			if strings.HasPrefix(arg, "-") && e.Scheme == "ssh" {
				t.Errorf("%q gives ssh the option %q", s, arg)
			}
		}
	})
}

func TestSSHArguments(t *testing.T) {
	t.Parallel()
	e, err := ParseEndpoint("ssh://me@box:2222/run/it's.sock", false)
	if err != nil {
		t.Fatal(err)
	}
	args := sshArguments(e)
	if i := slices.Index(args, "--"); i < 0 || args[i+1] != "box" || !slices.Contains(args, "2222") || !slices.Contains(args, "me") {
		t.Errorf("args: %q", args)
	}
	remote := args[len(args)-1]
	if !strings.Contains(remote, "system dial-stdio") || !strings.HasPrefix(remote, "sh -c '") {
		t.Errorf("remote command: %s", remote)
	}
}

// TestSSH runs a stand-in for ssh that connects to a local socket.
func TestSSH(t *testing.T) {
	dir := t.TempDir()
	c := speak(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
	script := "#!/bin/sh\nexec socat - UNIX-CONNECT:" + c.endpoint.Address + "\n"
	if _, err := os.Stat("/usr/bin/socat"); err != nil {
		script = "#!/bin/sh\nexec nc -U " + c.endpoint.Address + "\n"
		if _, err := os.Stat("/usr/bin/nc"); err != nil {
			t.Skip("needs socat or nc to stand in for ssh")
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	remote, err := New(Options{Host: "ssh://box"})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	remote.Close()
}

func TestUnreachableEnginesAreExplained(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Host: "unix:///nonexistent/berth.sock"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Ping(context.Background())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "/nonexistent/berth.sock: no such file") ||
		!strings.Contains(err.Error(), "start berthd") {
		t.Errorf("got %v", err)
	}
}

func TestSplitReference(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"alpine": {"alpine", "latest"}, "alpine:3": {"alpine", "3"}, "r:5000/a": {"r:5000/a", "latest"},
		"r:5000/a:b": {"r:5000/a", "b"}, "a@sha256:00": {"a", "sha256:00"}, "a:b@sha256:00": {"a:b", "sha256:00"},
	} {
		if name, tag := SplitReference(in); [2]string{name, tag} != want {
			t.Errorf("%s: %s, %s", in, name, tag)
		}
	}
}
