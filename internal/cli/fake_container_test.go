package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"berth/internal/client"
)

// fakeContainer runs a function of this file as its program.
type fakeContainer struct {
	id, name string
	request  client.CreateRequest
	status   string
	code     int
	stdin    *io.PipeReader
	feed     *io.PipeWriter
	signals  chan string
	resized  chan [2]string
	done     chan struct{}
	mu       sync.Mutex // guards attached and log
	attached []net.Conn
	log      bytes.Buffer
}

func (e *fakeEngine) start(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	if e.beforeStart != nil && e.beforeStart(c) {
		return
	}
	if len(c.request.Cmd) > 0 && c.request.Cmd[0] == "nosuch" {
		refuse(w, 400, `exec: "nosuch": executable file not found in $PATH`)
		return
	}
	e.launch(c)
	w.WriteHeader(204)
}

func (e *fakeEngine) launch(c *fakeContainer) {
	e.mu.Lock()
	started := c.status != "created"
	c.status = "running"
	e.mu.Unlock()
	if started {
		return
	}
	go func() {
		code := c.program()
		c.mu.Lock()
		for _, conn := range c.attached {
			_ = conn.Close()
		}
		c.mu.Unlock()
		e.mu.Lock()
		c.code, c.status = code, "exited"
		if c.request.HostConfig != nil && c.request.HostConfig.AutoRemove {
			delete(e.containers, c.id)
		}
		e.mu.Unlock()
		close(c.done)
	}()
}

// program is what runs in the fake containers.
func (c *fakeContainer) program() int {
	argv := append([]string{"true"}, c.request.Cmd...)
	if len(c.request.Cmd) > 0 {
		argv = c.request.Cmd
	}
	switch argv[0] {
	case "echo":
		c.write(1, strings.Join(argv[1:], " ")+"\n")
	case "both":
		c.write(1, "out\n")
		c.write(2, "err\n")
	case "exit":
		code, _ := strconv.Atoi(argv[1])
		return code
	case "cat":
		buf := make([]byte, 4096)
		for {
			n, err := c.stdin.Read(buf)
			if n > 0 {
				c.write(1, string(buf[:n]))
			}
			if err != nil {
				return 0
			}
		}
	case "signal":
		c.write(1, "ready\n")
		c.write(1, <-c.signals+"\n")
	case "wait":
		c.write(1, "ready\n")
		c.write(2, "err\n")
		<-c.signals
		c.write(1, "bye\n")
		return 7
	case "size":
		c.write(1, "ready\n")
		last := ""
		for size := range c.resized {
			if last = size[0] + "x" + size[1]; last == argv[1] {
				c.write(1, last+"\r\n")
				return 0
			}
		}
	}
	return 0
}

func (c *fakeContainer) write(stream byte, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.request.Tty {
		var head [8]byte
		head[0] = stream
		binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
		text = string(head[:]) + text
	}
	c.log.WriteString(text)
	for _, conn := range c.attached {
		_, _ = io.WriteString(conn, text)
	}
}

// cut breaks every attachment.
func (c *fakeContainer) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.attached {
		_ = conn.Close()
	}
	c.attached = nil
}

func (e *fakeEngine) attach(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		refuse(w, 500, err.Error())
		return
	}
	media := "multiplexed"
	if c.request.Tty {
		media = "raw"
	}
	c.mu.Lock() // whoever sees the answer finds the container attached
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", media)
	c.attached = append(c.attached, conn)
	c.mu.Unlock()
	if r.URL.Query().Get("stdin") == "1" {
		go func() {
			_, _ = io.Copy(c.feed, buf)
			if !c.request.Tty { // a terminal outlives who sits at it
				_ = c.feed.Close()
			}
		}()
	}
}

func (e *fakeEngine) wait(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	w.(http.Flusher).Flush()
	select {
	case <-c.done:
	case <-r.Context().Done():
		return
	}
	_ = json.NewEncoder(w).Encode(client.WaitResponse{StatusCode: int64(c.code)})
}

func (e *fakeEngine) signal(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	c.signals <- r.URL.Query().Get("signal")
	w.WriteHeader(204)
}

func (e *fakeEngine) stop(w http.ResponseWriter, _ *http.Request, c *fakeContainer) {
	w.Header().Set("Berth-Notice", "killed: it ignored SIGTERM")
	w.WriteHeader(204)
}

func (e *fakeEngine) resize(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	c.resized <- [2]string{r.URL.Query().Get("h"), r.URL.Query().Get("w")}
}

func (e *fakeEngine) inspect(w http.ResponseWriter, _ *http.Request, c *fakeContainer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s client.ContainerState
	s.ID, s.Name, s.State.Status, s.State.Running, s.Config.Tty = c.id, "/"+c.name, c.status, c.status == "running", c.request.Tty
	s.Config.OpenStdin = c.request.OpenStdin
	_ = json.NewEncoder(w).Encode(s)
}

func (e *fakeEngine) logs(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	if r.URL.Query().Get("follow") == "1" {
		<-c.done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = w.Write(c.log.Bytes())
}

func (e *fakeEngine) remove(w http.ResponseWriter, _ *http.Request, c *fakeContainer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, c.id)
	w.WriteHeader(204)
}

func (e *fakeEngine) execCreate(w http.ResponseWriter, r *http.Request, _ *fakeContainer) {
	var request client.ExecRequest
	_ = json.NewDecoder(r.Body).Decode(&request)
	c := &fakeContainer{status: "created", signals: make(chan string, 1), resized: make(chan [2]string, 16), done: make(chan struct{})}
	c.request.Config = &client.Config{Cmd: request.Cmd, Tty: request.Tty}
	c.stdin, c.feed = io.Pipe()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	id := fmt.Sprintf("exec%d", e.next)
	e.execs[id] = c
	_ = json.NewEncoder(w).Encode(map[string]string{"Id": id})
}

func (e *fakeEngine) execStart(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	c := e.execs[r.PathValue("id")]
	e.mu.Unlock()
	if c.request.Cmd[0] == "nosuch" {
		w.Header().Set("Berth-Exit-Code", "127")
		refuse(w, 400, "nosuch: no such program in the container")
		return
	}
	q := r.URL.Query()
	q.Set("stdin", "1")
	r.URL.RawQuery = q.Encode()
	e.attach(w, r, c)
	e.launch(c)
}

func (e *fakeEngine) execInspect(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	c := e.execs[r.PathValue("id")]
	e.mu.Unlock()
	<-c.done
	_ = json.NewEncoder(w).Encode(client.ExecState{ExitCode: &c.code})
}
