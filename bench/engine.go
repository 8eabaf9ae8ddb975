package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// engine is a daemon that speaks the Docker Engine API on a unix socket. marker
// is a string that the command lines of all its processes contain.
type engine struct {
	name, marker, socket string
	argv                 []string
	cmd                  *exec.Cmd
	client               *http.Client
}

// start runs the daemon and returns when it answers /_ping.
func (e *engine) start(logFile string) error {
	if err := os.MkdirAll(filepath.Dir(e.socket), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	e.cmd = exec.Command(e.argv[0], e.argv[1:]...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.client = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
		}}}
	if err := e.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if e.call("GET", "/_ping", nil, nil) == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	text, _ := os.ReadFile(logFile)
	return fmt.Errorf("%s does not answer: %s", e.name, tail(string(text), 400))
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

// stop asks the daemon to end and waits for it.
func (e *engine) stop() {
	if e.cmd == nil || e.cmd.Process == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	_ = e.cmd.Wait()
	e.client.CloseIdleConnections()
	e.cmd = nil
}

// call sends one API request; a status of 300 or more (but 304) is an error.
func (e *engine) call(method, path string, body, answer any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, "http://engine"+path, reader)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		return fmt.Errorf("%s %s %s: %s: %s", e.name, method, path, resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// create makes a container and returns its id.
func (e *engine) create(network string, argv ...string) (string, error) {
	var created struct{ ID string }
	err := e.call("POST", "/v1.41/containers/create", map[string]any{
		"Image": image, "Cmd": argv, "HostConfig": map[string]any{"NetworkMode": network}}, &created)
	return created.ID, err
}

// lifecycle is create, start, wait and remove of a container that ends at once.
func (e *engine) lifecycle(network string, argv ...string) error {
	id, err := e.create(network, argv...)
	if err != nil {
		return err
	}
	if err := e.call("POST", "/v1.41/containers/"+id+"/start", nil, nil); err != nil {
		return err
	}
	var ended struct{ StatusCode int }
	if err := e.call("POST", "/v1.41/containers/"+id+"/wait", nil, &ended); err != nil {
		return err
	}
	if ended.StatusCode != 0 {
		return fmt.Errorf("%s: %v ended with %d", e.name, argv, ended.StatusCode)
	}
	return e.call("DELETE", "/v1.41/containers/"+id, nil, nil)
}

func (e *engine) list() ([]string, error) {
	var all []struct{ ID string }
	err := e.call("GET", "/v1.41/containers/json?all=1", nil, &all)
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	return ids, err
}

// removeAll removes every container, eight at a time.
func (e *engine) removeAll() {
	ids, err := e.list()
	if err != nil {
		return
	}
	_ = eightAtATime(len(ids), func(i int) error {
		return e.call("DELETE", "/v1.41/containers/"+ids[i]+"?force=1", nil, nil)
	})
}

// eightAtATime calls do for 0..n-1 from eight goroutines; the first error wins.
func eightAtATime(n int, do func(int) error) error {
	next := make(chan int)
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			var first error
			for i := range next {
				if err := do(i); err != nil && first == nil {
					first = err
				}
			}
			errs <- first
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	var first error
	for range 8 {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// pidsWith lists the processes whose command line contains marker.
func pidsWith(marker string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err == nil && strings.Contains(string(line), marker) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// pss returns the proportional set size of the engine's processes in KiB.
func (e *engine) pss() float64 {
	total := 0.0
	for _, pid := range pidsWith(e.marker) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
				kib, _ := strconv.ParseFloat(fields[1], 64)
				total += kib
			}
		}
	}
	return total
}
