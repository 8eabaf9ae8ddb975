package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

func noTTY() (bool, error) { return false, nil }

// echo is an attached container that writes its header, repeats its input in
// capitals until the end of it, and says goodbye.
func echo(o engine.AttachOptions, conn *os.File) error {
	c, err := net.FileConn(conn)
	if err != nil {
		return err
	}
	go func() {
		defer c.Close()
		c.Write(o.Header)
		in, _ := io.ReadAll(io.MultiReader(bytes.NewReader(o.Prefix), c))
		c.Write(bytes.ToUpper(in))
		c.Write([]byte("BYE"))
	}()
	return nil
}

func TestAttachHandsTheConnectionOver(t *testing.T) {
	for _, c := range []struct{ name, version, upgrade, status, contentType string }{
		{"upgrade", "1.56", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED", "application/vnd.docker.multiplexed-stream"},
		{"upgrade of an old client", "1.41", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "101 UPGRADED", "application/vnd.docker.raw-stream"},
		{"no upgrade", "1.44", "", "200 OK", "application/vnd.docker.raw-stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, &stub{tty: noTTY, attach: echo})
			conn := s.dial(t)
			// The input follows at once, so that part of it is read with the request.
			fmt.Fprintf(conn, "POST /v%s/containers/x/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n%sContent-Length: 0\r\n\r\nhello ", c.version, c.upgrade)
			fmt.Fprint(conn, "world")
			conn.CloseWrite()
			out, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			head, rest, _ := strings.Cut(string(out), "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 "+c.status+"\r\n") || !strings.Contains(head, "Content-Type: "+c.contentType) {
				t.Errorf("header %q", head)
			}
			if rest != "HELLO WORLDBYE" {
				t.Errorf("stream %q", rest)
			}
		})
	}
}

func TestAttachAnswersErrorsAsHTTP(t *testing.T) {
	conflict := fault.New(fault.Conflict, "", "", "container is paused")
	for _, c := range []struct {
		name   string
		engine *stub
		code   int
		want   string
	}{
		{"found before", &stub{}, 404, "No such container: x"},
		{"found after", &stub{tty: noTTY, attach: func(engine.AttachOptions, *os.File) error { return conflict }}, 409, "container is paused"},
	} {
		s := serve(t, c.engine)
		resp, err := s.client.Post("http://d/v1.44/containers/x/attach?stream=1", "text/plain", nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %d %s", c.name, resp.StatusCode, body)
		}
		wantMessage(t, c.name, resp.Header, body)
	}
}

func TestExecStartReadsItsBodyBeforeTheStream(t *testing.T) {
	got := make(chan engine.ExecStartOptions, 1)
	e := &stub{
		execGet: func() (container.ExecInspectResponse, error) { return container.ExecInspectResponse{ID: "e"}, nil },
		execRun: func(o engine.ExecStartOptions, conn *os.File) error {
			got <- o
			return echo(engine.AttachOptions{Header: o.Header, Prefix: o.Prefix}, conn)
		},
	}
	body := `{"Detach":false,"Tty":true,"ConsoleSize":[24,80]}`
	for name, request := range map[string]string{
		"length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		// dockerode's body is the options of its own method.
		"dockerode": strings.Replace(fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)+len(`"hijack":true,"stdin":true,`), body), "{", `{"hijack":true,"stdin":true,`, 1),
		"chunked":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
	} {
		s := serve(t, e)
		conn := s.dial(t)
		fmt.Fprintf(conn, "POST /v1.44/exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n%sinput", request)
		conn.CloseWrite()
		out, _ := io.ReadAll(conn)
		head, rest, _ := strings.Cut(string(out), "\r\n\r\n")
		if rest != "INPUTBYE" || !strings.Contains(head, "application/vnd.docker.raw-stream") {
			t.Errorf("%s: %q", name, out)
		}
		if o := <-got; !o.Tty || o.ConsoleSize == nil || o.ConsoleSize[1] != 80 || o.Detach {
			t.Errorf("%s: engine was asked %+v", name, o)
		}
	}
}

func TestDetachedExecHasNoConnection(t *testing.T) {
	e := &stub{execRun: func(o engine.ExecStartOptions, conn *os.File) error {
		if !o.Detach || conn != nil {
			return errors.New("a connection came with a detached exec")
		}
		return nil
	}}
	if w := ask(t, e, "POST", "/v1.41/exec/e/start", `{"Detach":true,"Tty":false}`); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAttachOverTLSReachesTheContainer(t *testing.T) {
	srv := httptest.NewTLSServer(New(&stub{tty: noTTY, attach: echo}, nil))
	defer srv.Close()
	conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /containers/x/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nsecret")
	conn.CloseWrite()
	out, _ := io.ReadAll(conn)
	if _, rest, _ := strings.Cut(string(out), "\r\n\r\n"); rest != "SECRETBYE" {
		t.Errorf("%q", out)
	}
}

func TestWaitSendsItsHeadersAtOnce(t *testing.T) {
	result := make(chan engine.WaitResult, 1)
	s := serve(t, &stub{wait: func(_ context.Context, cond container.WaitCondition) (<-chan engine.WaitResult, error) {
		if cond != container.WaitConditionNextExit {
			return nil, fmt.Errorf("condition %q", cond)
		}
		return result, nil
	}})
	resp, err := s.client.Post("http://d/v1.44/containers/x/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err) // without early headers Post would not return at all
	}
	defer resp.Body.Close()
	result <- engine.WaitResult{StatusCode: 3}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || strings.TrimSpace(string(body)) != `{"StatusCode":3}` {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestWaitOfOldClientsAndErrors(t *testing.T) {
	ended := func(res engine.WaitResult) *stub {
		return &stub{wait: func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) {
			ch := make(chan engine.WaitResult, 1)
			ch <- res
			return ch, nil
		}}
	}
	failed := engine.WaitResult{StatusCode: -1, Err: errors.New("stuck")}
	for _, c := range []struct {
		path string
		e    *stub
		code int
		want string
	}{
		{"/v1.29/containers/x/wait?condition=removed", ended(engine.WaitResult{StatusCode: 7}), 200, `{"StatusCode":7}`},
		{"/v1.33/containers/x/wait?condition=removed", ended(failed), 200, ""},
		{"/v1.34/containers/x/wait?condition=removed", ended(failed), 200, `{"Error":{"Message":"stuck"},"StatusCode":-1}`},
		{"/v1.44/containers/x/wait?condition=later", &stub{}, 400, `invalid condition`},
		{"/v1.44/containers/x/wait", &stub{}, 404, `No such container: x`},
	} {
		w := ask(t, c.e, "POST", c.path, "")
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || c.want == "" && w.Body.Len() > 0 {
			t.Errorf("%s: %d %q", c.path, w.Code, w.Body)
		}
	}
}

func TestAClientThatGoesAwayEndsItsWork(t *testing.T) {
	gone := make(chan struct{})
	watch := func(ctx context.Context) { <-ctx.Done(); close(gone) }
	for name, c := range map[string]struct {
		method, path string
		engine       *stub
	}{
		"wait": {"POST", "/containers/x/wait", &stub{wait: func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
			go watch(ctx)
			return make(chan engine.WaitResult), nil
		}}},
		"events": {"GET", "/events", &stub{events: func(ctx context.Context, _ filter.Set) (<-chan events.Message, error) {
			go watch(ctx)
			return make(chan events.Message), nil
		}}},
		"logs": {"GET", "/containers/x/logs?stdout=1&follow=1", &stub{tty: noTTY, logs: func(ctx context.Context, _ engine.LogsOptions, _, _ io.Writer) error {
			watch(ctx)
			return ctx.Err()
		}}},
	} {
		gone = make(chan struct{})
		s := serve(t, c.engine)
		conn := s.dial(t)
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: d\r\n\r\n", c.method, c.path)
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			t.Errorf("%s: no headers: %v", name, err)
		}
		conn.Close()
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s went on without its client", name)
		}
	}
}

func TestShutdownBreaksOffStreams(t *testing.T) {
	s := serve(t, &stub{wait: func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) {
		return make(chan engine.WaitResult), nil
	}})
	resp, err := s.client.Post("http://d/containers/x/wait", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.api.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client took %q for a whole answer", body)
	}
}

func TestLogsAreFramedUnlessThereIsATerminal(t *testing.T) {
	write := func(_ context.Context, _ engine.LogsOptions, stdout, stderr io.Writer) error {
		fmt.Fprint(stdout, "out\n")
		fmt.Fprint(stderr, "err\n")
		return nil
	}
	for _, follow := range []string{"", "&follow=1"} {
		w := ask(t, &stub{tty: noTTY, logs: write}, "GET", "/v1.44/containers/x/logs?stdout=1&stderr=1"+follow, "")
		var stdout, stderr bytes.Buffer
		if _, err := stdcopy.StdCopy(&stdout, &stderr, w.Body); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != "out\n" || stderr.String() != "err\n" {
			t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/vnd.docker.multiplexed-stream" {
			t.Errorf("content type %q", ct)
		}
		tty := &stub{tty: func() (bool, error) { return true, nil }, logs: write}
		if w := ask(t, tty, "GET", "/v1.44/containers/x/logs?stdout=1"+follow, ""); w.Body.String() != "out\nerr\n" {
			t.Errorf("with a terminal: %q", w.Body)
		}
	}
}

func TestLogErrorsKeepTheirStatus(t *testing.T) {
	unreadable := fault.New(fault.Unsupported, "", "", "configured logging driver does not support reading")
	e := &stub{tty: noTTY, logs: func(context.Context, engine.LogsOptions, io.Writer, io.Writer) error { return unreadable }}
	for _, path := range []string{"/containers/x/logs?stdout=1", "/containers/x/logs?stdout=1&follow=1"} {
		w := ask(t, e, "GET", path, "")
		if w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		wantMessage(t, path, w.Header(), w.Body.Bytes())
	}
	for _, path := range []string{"/containers/x/logs", "/containers/x/logs?stdout=1&since=soon", "/containers/x/logs?stdout=1&until=1.x"} {
		if w := ask(t, e, "GET", path, ""); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestFollowedLogsArriveLineByLineAndWhole(t *testing.T) {
	next := make(chan string)
	s := serve(t, &stub{tty: noTTY, logs: func(_ context.Context, _ engine.LogsOptions, stdout, _ io.Writer) error {
		for line := range next {
			if _, err := io.WriteString(stdout, line); err != nil {
				return err
			}
		}
		return nil
	}})
	resp, err := s.client.Get("http://d/containers/x/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err) // the headers must come without a line
	}
	defer resp.Body.Close()
	r, w := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(w, io.Discard, resp.Body)
		w.CloseWithError(err)
	}()
	lines := bufio.NewReader(r)
	for i := range 3 {
		want := fmt.Sprintf("line %d\n", i)
		next <- want
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	const flood = 20000
	go func() {
		for i := range flood {
			next <- fmt.Sprintf("%d\n", i)
		}
		close(next)
	}()
	for i := range flood {
		if got, err := lines.ReadString('\n'); got != fmt.Sprintf("%d\n", i) {
			t.Fatalf("line %d is %q, %v", i, got, err)
		}
	}
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestASlowReaderHoldsOnlyItsOwnLogBack(t *testing.T) {
	written := make(chan int, 1)
	s := serve(t, &stub{tty: noTTY, logs: func(ctx context.Context, _ engine.LogsOptions, stdout, _ io.Writer) error {
		n := 0
		for ctx.Err() == nil {
			if _, err := stdout.Write(make([]byte, 1000)); err != nil {
				break
			}
			n += 1000
		}
		written <- n
		return ctx.Err()
	}})
	conn := s.dial(t)
	fmt.Fprint(conn, "GET /containers/x/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
	io.ReadFull(conn, make([]byte, 100<<10))
	if w := ask(t, &stub{}, "GET", "/_ping", ""); w.Code != 200 {
		t.Error("the engine is blocked")
	}
	conn.Close()
	// The kernel's socket buffers hold some hundred kilobytes; the rest must wait.
	if n := <-written; n > 8<<20 {
		t.Errorf("%d bytes were taken for a client which read 100 KiB", n)
	}
}
