package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestMain lets this program stand in for berthd.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CLIENT_TEST_ENGINE"); socket != "" {
		standIn(socket)
		return
	}
	os.Exit(m.Run())
}

// standIn serves pings until a request asks it to end.
func standIn(socket string) {
	count, _ := os.OpenFile(socket+".starts", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	_, _ = fmt.Fprintln(count, strings.Join(os.Args[1:], " "))
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/containers/end/kill" {
			os.Exit(0)
		}
		_, _ = io.WriteString(w, "OK")
	}))
}

// engineInPath puts a berthd into PATH and returns its socket.
func engineInPath(t *testing.T, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bs-")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "berth.sock")
	t.Cleanup(func() {
		if c, err := New(Options{Host: socket}); err == nil {
			_ = c.ContainerKill(context.Background(), "end", "")
		}
		_ = os.RemoveAll(dir)
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if script == "" {
		script = fmt.Sprintf("CLIENT_TEST_ENGINE=%s exec %s \"$@\"", socket, self)
	}
	if err := os.WriteFile(filepath.Join(dir, "berthd"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("BERTH_ROOT", filepath.Join(dir, "data"))
	return socket
}

func TestClientsThatArriveTogetherStartOneEngine(t *testing.T) {
	socket := engineInPath(t, "")
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			c, err := New(Options{Host: socket, Starter: StartEngine})
			if err == nil {
				err = c.Ping(context.Background())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	starts, _ := os.ReadFile(socket + ".starts")
	want := "--root " + filepath.Join(filepath.Dir(socket), "data") + " --run " + filepath.Dir(socket) + "\n"
	if string(starts) != want {
		t.Errorf("starts:\n%swant:\n%s", starts, want)
	}
}

func TestAnEngineIsStartedAgainAsItWas(t *testing.T) {
	socket := engineInPath(t, "")
	t.Setenv("BERTH_ROOT", "")
	args := filepath.Join(filepath.Dir(socket), "berthd.args")
	if err := os.WriteFile(args, []byte(`["--root","/data","--label","a=b c"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Host: socket, Starter: StartEngine})
	if err == nil {
		err = c.Ping(context.Background())
	}
	starts, _ := os.ReadFile(socket + ".starts")
	if err != nil || string(starts) != "--root /data --label a=b c\n" {
		t.Errorf("%v, started with %q", err, starts)
	}
}

func TestAnEngineThatCannotStartShowsItsLog(t *testing.T) {
	socket := engineInPath(t, "echo the disk is made of cheese; exit 3")
	c, err := New(Options{Host: socket, Starter: StartEngine})
	if err == nil {
		err = c.Ping(context.Background())
	}
	if err == nil || !strings.Contains(err.Error(), "made of cheese") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestNoEngineIsStartedForAnUnknownPlace(t *testing.T) {
	socket := engineInPath(t, "")
	t.Setenv("BERTH_ROOT", "")
	for _, path := range []string{socket, filepath.Join(filepath.Dir(socket), "docker.sock")} {
		c, err := New(Options{Host: path, Starter: StartEngine})
		if err == nil {
			err = c.Ping(context.Background())
		}
		if err == nil {
			t.Errorf("%s: an engine was started", path)
		}
	}
	entries, _ := os.ReadDir(filepath.Dir(socket))
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".starts") }) {
		t.Error("an engine was started")
	}
}
