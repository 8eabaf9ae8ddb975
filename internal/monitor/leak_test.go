package monitor

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// descriptors counts the open descriptors of a process of the monitor.
func (h *host) descriptors(name string) int {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(h.pid(name)) + "/fd")
	if err != nil {
		h.t.Fatal(err)
	}
	return len(entries)
}

// Everything that containers, clients and execs open is closed again.
func TestNothingLeaks(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		ctx := t.Context()
		round := func(i int) {
			id := h.id(fmt.Sprint("c", i))
			req := h.request(id, "cat; echo end")
			req.OpenStdin, req.StdinOnce = true, true
			req.Spec.Process.Terminal = i%3 == 1
			if i%2 == 0 {
				req.Log.Driver = NoLog
			}
			conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true})
			gone := h.attach(AttachRequest{ContainerID: id, Stdout: true, Stderr: true})
			h.start(req)
			_ = gone.Close()
			x := h.attach(AttachRequest{ContainerID: id, ExecID: "x", Stdin: true, Stdout: true})
			process := &specs.Process{Args: []string{"/bin/sh", "-c", "echo exec"}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: i%2 == 0}
			if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "x", Process: process, OpenStdin: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(x); err != nil {
				t.Error(err)
			}
			_ = x.Close()
			h.await(EventExecExit, id, "x")
			_, _ = conn.Write([]byte("text\n\x04"))
			_ = conn.CloseWrite()
			if _, err := io.ReadAll(conn); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
			h.exit(id)
			h.forget(id)
			// One that cannot start, with a client that waits for it.
			id += "-bad"
			req = h.request(id, "")
			req.Spec.Process.Args = []string{"/bin/absent"}
			waiting := h.attach(AttachRequest{ContainerID: id, Stdout: true})
			if _, err := h.client.Start(ctx, req); err == nil {
				t.Error("an absent program was started")
			}
			_ = waiting.Close()
		}
		for i := range 6 { // also opens what stays open, such as /dev/null
			round(i)
		}
		worker, keeper := h.descriptors("worker.pid"), h.descriptors("keeper.pid")
		for i := 6; i < 24; i++ {
			round(i)
		}
		h.eventually("all descriptors are closed", func() bool {
			return h.descriptors("worker.pid") <= worker && h.descriptors("keeper.pid") <= keeper
		})
		h.expectNothing(h.id("*"))
	})
}
