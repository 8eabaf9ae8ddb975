package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestLogDriverLocalAndTag(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "--name", "one", "--log-driver", "local", "--log-opt", "max-size=1m", busyboxImage, "sh", "-c", "echo out; echo err >&2")
	h.equal(h.docker("logs", "one").stdout, "out\n")
	h.equal(h.docker("logs", "one").stderr, "err\n")
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.LogConfig.Type}}{{.LogPath}}", "one"), "local")
	h.ok("run", "--name", "two", "--log-opt", "tag={{.Name}}/{{.ImageName}}", busyboxImage, "echo", "hi")
	h.equal(h.ok("logs", "--details", "two"), "tag=two/"+busyboxImage+" hi")
	h.refused("invalid log option tag", "run", "--rm", "--log-opt", "tag={{.Nonsense}}", busyboxImage, "true")
	h.refused("json-file, local, none and syslog", "run", "--rm", "--log-driver", "fluentd", busyboxImage, "true")
	h.refused("unknown log opt 'colour' for local log driver", "run", "--rm", "--log-driver", "local", "--log-opt", "colour=red", busyboxImage, "true")
	h.ok("run", "--name", "none", "--log-driver", "none", busyboxImage, "echo", "hi")
	h.refused("does not support reading", "logs", "none")
	h.ok("rm", "one", "two", "none")
}

const countTo = `i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done`

// counted fails unless text is "line 1" to "line n" in order.
func (h *host) counted(what, text string, n int) {
	h.t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		if line != fmt.Sprint("line ", i+1) {
			h.t.Fatalf("%s: %q is line %d of %d", what, line, i+1, len(lines))
		}
	}
	if len(lines) != n {
		h.t.Errorf("%s: %d lines, want %d", what, len(lines), n)
	}
}

// The monitor's worker is killed again and again while lines flow into files that
// are rotated and compressed: what logs shows, afterwards and while following,
// are all lines, once, in order.
func TestLogsThroughRotationCompressionAndKills(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const lines = 100_000
	for name, options := range map[string][]string{
		"json":  {"--log-opt", "max-size=50k", "--log-opt", "max-file=1000", "--log-opt", "compress=true"},
		"local": {"--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=1000"},
		"async": {"--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=1000", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64m"},
	} {
		h.ok(append(append([]string{"run", "-d", "--name", name}, options...), busyboxImage, "sh", "-c", fmt.Sprintf(countTo, lines))...)
	}
	var group sync.WaitGroup
	followed := make(map[string]string)
	var mu sync.Mutex
	for _, name := range []string{"json", "local", "async"} {
		group.Go(func() {
			out := h.ok("logs", "-f", name)
			mu.Lock()
			followed[name] = out
			mu.Unlock()
		})
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	kills := 0
	for done := false; !done; {
		for _, pid := range h.monitors() {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
			}
		}
		select {
		case <-ended:
			done = true
		case <-time.After(70 * time.Millisecond):
		}
	}
	for name, out := range followed {
		h.counted(name+" followed", out, lines)
		h.counted(name, h.ok("logs", name), lines)
		h.equal(h.ok("logs", "--tail", "2", name), fmt.Sprintf("line %d\nline %d", lines-1, lines))
	}
	zipped, _ := filepath.Glob(h.path("data", "containers", "*", "*.gz"))
	t.Logf("%d kills, %d compressed files", kills, len(zipped))
	if kills == 0 || len(zipped) < 10 {
		t.Errorf("%d kills, %d compressed files", kills, len(zipped))
	}
	h.ok("rm", "json", "local", "async")
	if left, _ := filepath.Glob(h.path("data", "containers", "*", "*.log*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// syslogServer collects the numbers of lines that arrive at a unix socket.
type syslogServer struct {
	listener net.Listener
	mu       sync.Mutex
	seen     map[int]int
	first    string
}

func (h *host) syslogServer(path string) *syslogServer {
	h.t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		h.t.Fatal(err)
	}
	s := &syslogServer{listener: l, seen: map[int]int{}}
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.read(c)
		}
	}()
	return s
}

func (s *syslogServer) read(c net.Conn) {
	defer c.Close()
	for in := bufio.NewScanner(c); in.Scan(); {
		n, _ := strconv.Atoi(in.Text()[strings.LastIndexByte(in.Text(), ' ')+1:])
		s.mu.Lock()
		if s.first == "" {
			s.first = in.Text()
		}
		s.seen[n]++
		s.mu.Unlock()
	}
}

func (s *syslogServer) count() (lines, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, times := range s.seen {
		if n > 0 {
			lines++
			again += times - 1
		}
	}
	return lines, again
}

// The engine and the monitor's worker are killed while lines are sent: each line
// arrives, few of them twice, and logs shows all of them once.
func TestSyslogThroughKills(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	server := h.syslogServer(h.path("syslog.sock"))
	const lines = 30_000
	h.ok("run", "-d", "--name", "sys", "--log-driver", "syslog", "--log-opt", "syslog-address=unix://"+h.path("syslog.sock"),
		"--log-opt", "syslog-format=rfc5424micro", "--log-opt", "syslog-facility=local1", "--log-opt", "tag={{.Name}}", "--log-opt", "cache-max-size=100k", "--log-opt", "cache-max-file=100",
		busyboxImage, "sh", "-c", fmt.Sprintf(countTo, lines))
	for range 4 {
		for _, pid := range h.monitors() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
		h.killEngine()
		h.startEngine()
	}
	h.eventually("all lines arrive", func() bool { n, _ := server.count(); return n == lines })
	_, again := server.count()
	t.Logf("%d of %d lines once more", again, lines)
	if again > lines/2 {
		t.Errorf("%d of %d lines were sent again", again, lines)
	}
	if want := `^<142>1 \S+\.\d{6}\S+ \S+ sys \d+ sys - line 1$`; !regexp.MustCompile(want).MatchString(server.first) {
		t.Errorf("the first message is %q", server.first)
	}
	h.ok("wait", "sys")
	h.counted("logs", h.ok("logs", "sys"), lines)
	h.ok("rm", "sys")
}

func TestSyslogOfShortLives(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	server := h.syslogServer(h.path("syslog.sock"))
	address := "syslog-address=unix://" + h.path("syslog.sock")
	h.ok("run", "--rm", "--log-driver", "syslog", "--log-opt", address, busyboxImage, "echo", "line 7")
	if n, _ := server.count(); n != 1 {
		h.eventually("the last line of a container that is gone arrives", func() bool { n, _ := server.count(); return n == 1 })
	}
	h.ok("run", "--name", "off", "--log-driver", "syslog", "--log-opt", address, "--log-opt", "cache-disabled=true", busyboxImage, "echo", "line 8")
	h.eventually("a line without a cache arrives", func() bool { n, _ := server.count(); return n == 2 })
	h.refused("does not support reading", "logs", "off")
	// A server that is not there holds up nobody, and gets the lines later.
	late := h.path("late.sock")
	h.ok("run", "--name", "late", "--log-driver", "syslog", "--log-opt", "syslog-address=unix://"+late, busyboxImage, "echo", "line 9")
	h.equal(h.ok("logs", "late"), "line 9")
	other := h.syslogServer(late)
	h.eventually("a line waits for the server", func() bool { n, _ := other.count(); return n == 1 })
	h.refused("syslog-address", "run", "--rm", "--log-driver", "syslog", "--log-opt", "syslog-address=nowhere", busyboxImage, "true")
	h.ok("rm", "off", "late")
	if text, err := os.ReadFile(h.path("engine.log")); err != nil || strings.Count(string(text), "syslog cannot be reached") != 1 {
		t.Errorf("the outage is not told of once: %v\n%s", err, text)
	}
}
