package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/engine/images"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// requestsOfAllRoutes are method and path of one request for each endpoint, the
// ones that are answered by name only included.
func requestsOfAllRoutes() (out []string) {
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for _, rt := range slices.Concat(routes, routesLife, routesBuild) {
		out = append(out, placeholder.ReplaceAllString(strings.TrimSuffix(rt.pattern, "{$}"), "x"))
	}
	return append(out, "POST /images/x/push", "POST /images/x/tag?repo=y", "POST /swarm/init", "POST /plugins/pull")
}

// Streams may be of any length: archives, contexts and what goes into a program.
var streams = map[string]bool{
	"PUT /containers/x/archive": true, "POST /images/load": true, "POST /images/create": true, "POST /build": true,
	"POST /session": true, "POST /grpc": true,
}

// A body without end is not read without end, whatever the endpoint.
func TestNoRouteReadsABodyWithoutEnd(t *testing.T) {
	s := serve(t, &stub{})
	const enough = maxBody + 4<<20 // the limit, and what sockets and the server hold
	chunk := []byte(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10)))
	for _, request := range requestsOfAllRoutes() {
		method, path, _ := strings.Cut(request, " ")
		limit := int64(enough)
		if streams[request] || strings.HasPrefix(path, "/berth/") {
			limit = drainBytes + 16<<20
		}
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute)) // a server that waits for more fails the test
			fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", method, path)
			closed := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, c)
				closed <- err
			}()
			sent := int64(0)
			for {
				n, err := c.Write(chunk)
				sent += int64(n)
				if err != nil {
					break
				}
				if sent > limit {
					t.Fatalf("the engine has read %d MiB", sent>>20)
				}
			}
			var late net.Error
			if err := <-closed; errors.As(err, &late) && late.Timeout() {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

// What is too large is refused with the status that says so.
func TestLargeBodiesAreRefused(t *testing.T) {
	body := `{"Labels":{"a":"` + strings.Repeat("x", maxBody) + `"}}`
	for _, request := range []string{"POST /containers/create", "POST /networks/create", "POST /volumes/create", "POST /containers/x/exec",
		"POST /containers/x/update", "POST /networks/x/connect", "POST /auth", "POST /commit?container=x"} {
		method, path, _ := strings.Cut(request, " ")
		if w := ask(t, &stub{}, method, path, body); w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %s", request, w.Code, w.Body)
		}
	}
}

// A client that goes away ends what was done for it.
func TestWorkEndsWithItsClient(t *testing.T) {
	forever := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	e := &stub{
		tty: func() (bool, error) { return false, nil },
		wait: func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
			return make(chan engine.WaitResult), nil
		},
		logs: func(ctx context.Context, _ engine.LogsOptions, _, _ io.Writer) error { return forever(ctx) },
		events: func(ctx context.Context, _ filter.Set) (<-chan events.Message, error) {
			return make(chan events.Message), nil
		},
		img: imageStub{
			pull: func(ctx context.Context, _ string, _ images.PullOptions, _ io.Writer) error { return forever(ctx) },
			load: func(r io.Reader, _ images.LoadOptions, _ io.Writer) error {
				_, err := io.Copy(io.Discard, r)
				return err
			},
		},
	}
	s := serve(t, e)
	var running, number atomic.Int64
	var at sync.Map // what is being served, for the message
	inner := s.api
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		name := fmt.Sprintf("%d: %s %s, %d bytes", number.Add(1), r.Method, r.RequestURI, r.ContentLength)
		at.Store(name, true)
		defer running.Add(-1)
		defer at.Delete(name)
		inner.ServeHTTP(w, r)
	})
	ln, err := net.Listen("unix", s.socket+"2")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: counted}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	requests := append(requestsOfAllRoutes(), "GET /containers/x/logs?follow=1&stdout=1", "POST /containers/x/wait", "POST /images/create?fromImage=x&tag=1")
	for _, request := range requests {
		for _, body := range []string{"", "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"} {
			c, err := net.Dial("unix", s.socket+"2")
			if err != nil {
				t.Fatal(err)
			}
			if body == "" {
				body = "\r\n"
			}
			fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\n%s", request, body)
			_ = c.Close()
		}
	}
	// The last one is served when those before it are known to have come.
	c, err := net.Dial("unix", s.socket+"2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); running.Load() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			var left []string
			at.Range(func(k, _ any) bool { left = append(left, k.(string)); return true })
			t.Fatalf("%d requests of clients that are gone are still at work: %v", running.Load(), left)
		}
	}
}
