package test

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
)

func TestAttachOverAWebsocketAndMetrics(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "-di", "--name", "echo", busyboxImage, "sh", "-c", "read line; echo got $line; echo err >&2; read line")
	conn, err := net.Dial("unix", h.path("run", "berth.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	config, err := websocket.NewConfig("ws://engine/v1.44/containers/echo/attach/ws?stream=1&stdin=1&stdout=1&stderr=1", "http://engine")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ws.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), "got hello\n") || !strings.Contains(got.String(), "err\n") {
		n, err := ws.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
	}
	h.ok("kill", "echo")
	_ = h.docker("start", "nosuch")
	var text strings.Builder
	if err := h.get("/metrics", &text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`berth_containers{state="exited"} 1`, "berth_images 1", "berth_container_start_seconds_count 1",
		"berth_container_exits_total 1", `berth_api_failures_total{class="4xx"} `, `berth_container_start_seconds_bucket{le="+Inf"} 1`} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("%s is missing in\n%s", line, text.String())
		}
	}
	h.ok("rm", "echo")
}
