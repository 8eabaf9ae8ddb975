package syslog

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/logs/conformance"
	"berth/internal/logs/local"
)

// What logs shows of a container with this driver is what the driver local keeps.
func TestConformance(t *testing.T) { conformance.Run(t, local.Format{}) }

var transports = []string{"udp", "tcp", "tcp+tls", "unix", "unixgram"}

func TestMessagesOverEveryTransport(t *testing.T) {
	t.Parallel()
	pid := strconv.Itoa(os.Getpid())
	host, _ := os.Hostname()
	stamp := regexp.QuoteMeta(noon.Format(time.Stamp))
	zone := regexp.QuoteMeta(noon.Format("Z07:00"))
	for format, want := range map[string]string{
		"":           `^<%d>` + stamp + ` tag\[` + pid + `\]: %s\n$`,
		RFC3164:      `^<%d>` + stamp + ` ` + host + ` tag\[` + pid + `\]: %s\n$`,
		RFC5424:      `^<%d>1 2026-11-03T12:00:00` + zone + ` ` + host + ` tag ` + pid + ` tag - %s\n$`,
		RFC5424Micro: `^<%d>1 2026-11-03T12:00:00\.120000` + zone + ` ` + host + ` tag ` + pid + ` tag - %s\n$`,
	} {
		for _, network := range transports {
			t.Run(network+" "+format, func(t *testing.T) {
				t.Parallel()
				server := newServer(t, network, format)
				options := map[string]string{"syslog-address": server.option(), "syslog-format": format, "syslog-facility": "local3"}
				if network == "tcp+tls" {
					dir, _ := certificates()
					for _, n := range []string{"ca-cert", "cert"} {
						options["syslog-tls-"+n] = dir + "/cert.pem"
					}
					options["syslog-tls-key"] = dir + "/key.pem"
				}
				s := newSource(t, 20_000)
				s.say("stdout", "first é")
				_, finish := s.forward(options)
				s.say("stderr", "second")
				s.say("stdout", "")
				s.say("stdout", "third")
				for _, m := range []string{fmt.Sprintf(want, 19*8+6, "first é"), fmt.Sprintf(want, 19*8+3, "second"), fmt.Sprintf(want, 19*8+6, "third")} {
					if got := server.next(); !regexp.MustCompile(m).MatchString(got) {
						t.Errorf("got %q, want %s", got, m)
					}
				}
				finish()
				if len(server.messages) > 0 {
					t.Errorf("one more: %q", <-server.messages)
				}
			})
		}
	}
}

func number(message string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(message[strings.LastIndex(message, " ")+1:]))
	return n
}

// The server goes away and comes back again and again while lines flow: each
// arrives, but for what the server's own machine had taken and it had not read.
func TestServerThatComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp+tls", "unix", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, network, "")
			s := newSource(t, 20_000)
			_, finish := s.forward(map[string]string{"syslog-address": server.option(), "syslog-tls-skip-verify": "true"})
			line, seen := 0, map[int]bool{}
			for range 5 {
				for range 2000 {
					line++
					s.say("stdout", strconv.Itoa(line))
				}
				seen[number(server.next())] = true
				server.close()
				if network == "unixgram" {
					_ = os.Remove(server.address)
				}
				line++
				s.say("stdout", strconv.Itoa(line))
				server.listen(server.address)
			}
			finish()
			for {
				select {
				case m := <-server.messages:
					seen[number(m)] = true
					continue
				case <-time.After(300 * time.Millisecond):
				}
				break
			}
			missing := 0
			for i := 1; i <= line; i++ {
				if !seen[i] {
					missing++
				}
			}
			// A server that is closed takes with it what its kernel had acknowledged
			// and it had not read.
			if missing > line/2 || network == "unix" && missing > 0 {
				t.Errorf("%d of %d lines did not arrive", missing, line)
			}
			t.Logf("%d of %d lines taken by the kernel of a server that then closed", missing, line)
			if len(s.warn) > 20 {
				t.Errorf("%d warnings", len(s.warn))
			}
		})
	}
}

// Whoever sends next goes on where the last one was stopped, or a little before.
func TestForwarderThatIsReplaced(t *testing.T) {
	t.Parallel()
	server := newServer(t, "tcp", "")
	s := newSource(t, 20_000)
	options := map[string]string{"syslog-address": server.option()}
	const lines = 20_000
	go func() {
		for i := 1; i <= lines; i++ {
			s.say("stdout", strconv.Itoa(i))
		}
	}()
	last, again := 0, 0
	stop, _ := s.forward(options)
	take := func() {
		n := number(server.next())
		if n > last+1 {
			t.Fatalf("line %d after %d", n, last)
		}
		if n <= last {
			again++
		}
		last = max(last, n)
	}
	for round := 1; round <= 10; round++ {
		for last < round*lines/12 {
			take()
		}
		stop()
		stop, _ = s.forward(options)
	}
	for last < lines {
		take()
	}
	t.Logf("%d lines, %d of them once more", lines, again)
	if again > lines/2 {
		t.Errorf("%d of %d lines were sent again", again, lines)
	}
}

// A server that cannot be reached is told of once, and nothing waits for it.
func TestServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := newSource(t, 20_000)
	server := newServer(t, "tcp", "")
	server.close()
	stop, _ := s.forward(map[string]string{"syslog-address": server.option()})
	s.say("stdout", "1")
	select {
	case text := <-s.warn:
		if !strings.Contains(text, "syslog cannot be reached") {
			t.Error(text)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no warning")
	}
	time.Sleep(500 * time.Millisecond) // several attempts
	if len(s.warn) > 0 {
		t.Errorf("told again: %s", <-s.warn)
	}
	server.listen(server.address)
	if n := number(server.next()); n != 1 {
		t.Errorf("got line %d", n)
	}
	stop()
}

// A server that takes nothing more holds up nobody who wants to end.
func TestServerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		address := filepath.Join(t.TempDir(), "log")
		if network == "tcp" {
			address = "127.0.0.1:0"
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		s := newSource(t, -1)
		for range 2000 {
			s.say("stdout", strings.Repeat("x", 10_000))
		}
		stop, _ := s.forward(map[string]string{"syslog-address": network + "://" + l.Addr().String()})
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // for the buffers to fill
		began := time.Now()
		stop()
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: it took %v to stop", network, d)
		}
	}
}

func TestTLSServerHasToBeTrusted(t *testing.T) {
	t.Parallel()
	s := newSource(t, 20_000)
	server := newServer(t, "tcp+tls", "")
	stop, _ := s.forward(map[string]string{"syslog-address": server.option()})
	s.say("stdout", "secret")
	if text := <-s.warn; !strings.Contains(text, "certificate") {
		t.Error(text)
	}
	stop()
	if len(server.messages) > 0 {
		t.Error("a server that is not trusted got a message")
	}
}

func TestParse(t *testing.T) {
	o, err := Parse(map[string]string{"syslog-address": "tcp://logs.example", "syslog-facility": "7", "cache-max-size": "5m", "cache-max-file": "2", "cache-compress": "false"})
	if err != nil || o.Network != "tcp" || o.Address != "logs.example:514" || o.Facility != 7 || o.MaxSize != 5_000_000 || o.MaxFiles != 2 || o.Compress {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = Parse(nil); err != nil || o.Network != "" || o.Facility != 3 || o.MaxSize != local.DefaultMaxSize || !o.Compress || o.CacheDisabled {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	for _, bad := range []string{
		"syslog-address=nowhere", "syslog-address=http://x", "syslog-address=tcp://", "syslog-address=unix://", "syslog-address=unix://host/path",
		"syslog-facility=24", "syslog-facility=x", "syslog-format=rfc1", "syslog-tls-skip-verify=x", "syslog-tls-cert=x", "syslog-tls-key=x",
		"cache-disabled=x", "cache-max-size=x", "cache-max-file=0", "cache-compress=x", "mode=x", "max-buffer-size=1m", "max-size=1m", "colour=red",
	} {
		name, value, _ := strings.Cut(bad, "=")
		if _, err := Parse(map[string]string{name: value}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
