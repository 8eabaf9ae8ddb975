package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/fault"
)

// serve runs handler on a unix socket and returns a client of it.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "bk-")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		_ = os.RemoveAll(dir)
	})
	c, err := New(Options{Host: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// speak answers the first request on a connection with raw bytes and hangs up.
func speak(t *testing.T, answer string) *Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	})
}

func TestRefusalsHaveTheKindOfTheirStatus(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 404: fault.NotFound, 409: fault.Conflict,
		500: fault.Internal, 501: fault.Unsupported, 503: fault.Unavailable} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"message":"because"}`)
		})
		err := c.Ping(context.Background())
		if !fault.Is(err, kind) || err.Error() != "because" {
			t.Errorf("status %d: got %v of kind %v, want kind %v", status, err, fault.KindOf(err), kind)
		}
	}
}

func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string
		broken bool
	}{
		"nothing":               {"", true},
		"half a status line":    {"HTTP/1.1 20", true},
		"no end of the header":  {"HTTP/1.1 200 OK\r\nA: b\r\n", true},
		"short body":            {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[]", true},
		"unfinished chunks":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", true},
		"malformed chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n", false},
		"negative chunk":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n[]\r\n0\r\n\r\n", false},
		"negative length":       {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n[]", false},
		"another protocol":      {"SSH-2.0-OpenSSH_9.2\r\n", false},
		"malformed header line": {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", false},
		"endless header":        {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 500) + "\r\n", false},
	} {
		_, err := speak(t, c.answer).ExecCreate(context.Background(), "x", &ExecRequest{})
		if err == nil || Broken(err) != c.broken {
			t.Errorf("%s: %v, broken %v", name, err, Broken(err))
		}
	}
}

func TestBodiesOfEveryLength(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n[{\"Id\":\"a\"}]",
		"chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n[{\"Id\r\n7\r\n\":\"a\"}]\r\n0\r\nTrailer: x\r\n\r\n",
		"until close": "HTTP/1.0 200 OK\r\n\r\n[{\"Id\":\"a\"}]",
		"early hints": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n[{\"Id\":\"a\"}]",
		"bare lines":  "HTTP/1.1 200 OK\nContent-Length: 12\n\n[{\"Id\":\"a\"}]",
		"long header": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 9000) + "\r\nContent-Length: 12\r\n\r\n[{\"Id\":\"a\"}]",
	} {
		list, err := speak(t, strings.Replace(answer, "Length: 11", "Length: 12", 1)).ContainerList(context.Background(), ListOptions{})
		if err != nil || len(list) != 1 || list[0].ID != "a" {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	addresses := map[string]bool{}
	var seen int
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen++
		addresses[fmt.Sprintf("%p", r.Context().Value(http.LocalAddrContextKey))] = true
		_, _ = io.WriteString(w, "[]")
	})
	for range 5 {
		if _, err := c.ContainerList(context.Background(), ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.idle) != 1 || seen != 5 {
		t.Errorf("%d requests left %d connections", seen, len(c.idle))
	}
}

func TestACancelledRequestEnds(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.ContainerList(ctx, ListOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStreamedBody(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, `{"stream":"%v %v"}`, bytes.Equal(got, want), err)
	})
	var said string
	err := c.ImageLoad(context.Background(), bytes.NewReader(want), true, nil, func(m Progress) { said = m.Stream })
	if err != nil || said != "true <nil>" {
		t.Errorf("%q, %v", said, err)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("the disk burns") }

func TestAFailingSourceIsNamed(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			_, _ = io.WriteString(w, `{"stream":"accepted"}`)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := c.ImageLoad(ctx, failingReader{}, true, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "the disk burns") {
		t.Errorf("got %v", err)
	}
}

func TestAnEarlyRefusalEndsAnUpload(t *testing.T) {
	t.Parallel()
	c := speak(t, "HTTP/1.1 400 Bad Request\r\nContent-Length: 21\r\n\r\n{\"message\":\"not one\"}")
	endless := io.MultiReader(bytes.NewReader(make([]byte, 1<<22)), neverEnding{})
	err := c.ImageLoad(context.Background(), endless, true, nil, nil)
	if err == nil || err.Error() != "not one" {
		t.Errorf("got %v", err)
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

func TestDemultiplex(t *testing.T) {
	t.Parallel()
	in := "\x01\x00\x00\x00\x00\x00\x00\x03abc\x02\x00\x00\x00\x00\x00\x00\x02de\x00\x00\x00\x00\x00\x00\x00\x01f"
	var out, errs bytes.Buffer
	if err := Demultiplex(&out, &errs, strings.NewReader(in)); err != nil || out.String() != "abcf" || errs.String() != "de" {
		t.Errorf("%q %q %v", out.String(), errs.String(), err)
	}
	for name, bad := range map[string]string{
		"cut head": "\x01\x00", "cut frame": "\x01\x00\x00\x00\x00\x00\x00\x09abc",
		"unknown stream": "\x07\x00\x00\x00\x00\x00\x00\x01a", "engine's error": "\x03\x00\x00\x00\x00\x00\x00\x04oops",
	} {
		if err := Demultiplex(io.Discard, io.Discard, strings.NewReader(bad)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &conn{r: bufio.NewReader(bytes.NewReader(answer))}
		rs, err := c.receive("GET")
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, rs.body)
		if n > int64(len(answer)) {
			t.Errorf("a body of %d bytes came out of %d", n, len(answer))
		}
	})
}

func FuzzDemultiplex(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x03abc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = Demultiplex(&out, &out, bytes.NewReader(in))
		if out.Len() > len(in) {
			t.Errorf("%d bytes came out of %d", out.Len(), len(in))
		}
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "OK") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what the test is about
	server.StartTLS()
	defer server.Close()
	host := "tcp://" + server.Listener.Addr().String()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options *TLSOptions
		works   bool
	}{
		"verified":          {&TLSOptions{Verify: true, CA: ca}, true},
		"not trusted":       {&TLSOptions{Verify: true}, false},
		"not verified":      {&TLSOptions{}, true},
		"plain to TLS":      {nil, false},
		"half a key pair":   {&TLSOptions{Cert: ca}, false},
		"missing authority": {&TLSOptions{Verify: true, CA: "/nonexistent"}, false},
	} {
		cl, err := New(Options{Host: host, TLS: c.options})
		if err == nil {
			err = cl.Ping(context.Background())
		}
		if (err == nil) != c.works {
			t.Errorf("%s: %v", name, err)
		}
	}
}
