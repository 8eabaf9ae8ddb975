package syslog

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/conformance"
	"berth/internal/logs/local"
)

// What logs shows of a container with this driver is what the driver local keeps.
func TestConformance(t *testing.T) { conformance.Run(t, local.Format{}) }

// server is a syslog server on one address.
type server struct {
	t        *testing.T
	network  string
	address  string // as in the option
	framed   bool
	messages chan string

	mu       sync.Mutex
	listener io.Closer
	conns    []net.Conn
	tls      *tls.Config
}

func newServer(t *testing.T, network, format string) *server {
	s := &server{t: t, network: network, framed: network == "tcp+tls" && strings.HasPrefix(format, RFC5424), messages: make(chan string, 100_000)}
	host := "127.0.0.1:0"
	if strings.HasPrefix(network, "unix") {
		host = filepath.Join(t.TempDir(), "log")
	}
	if network == "tcp+tls" {
		s.tls = certificate(t)
	}
	s.listen(host)
	t.Cleanup(s.close)
	return s
}

func (s *server) listen(host string) {
	s.t.Helper()
	var err error
	switch s.network {
	case "udp", "unixgram":
		var c net.PacketConn
		if c, err = net.ListenPacket(s.network, host); err == nil {
			s.listener, s.address = c, c.LocalAddr().String()
			go s.datagrams(c)
		}
	default:
		var l net.Listener
		if l, err = net.Listen(strings.TrimSuffix(s.network, "+tls"), host); err == nil {
			s.listener, s.address = l, l.Addr().String()
			if s.tls != nil {
				l = tls.NewListener(l, s.tls)
			}
			go s.accept(l)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) option() string { return s.network + "://" + s.address }

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.listener.Close()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *server) datagrams(c net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		s.messages <- string(b[:n])
	}
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		go s.stream(c)
	}
}

func (s *server) stream(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		if s.framed {
			size, err := r.ReadString(' ')
			n, bad := strconv.Atoi(strings.TrimSpace(size))
			if err != nil || bad != nil {
				return
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			s.messages <- string(b)
			continue
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		s.messages <- line
	}
}

func (s *server) next() string {
	s.t.Helper()
	select {
	case m := <-s.messages:
		return m
	case <-time.After(20 * time.Second):
		s.t.Fatal("no message within 20 seconds")
		return ""
	}
}

// certificate returns what a server with a certificate of its own needs, which
// lies as ca.pem, cert.pem and key.pem in the directory that the name says.
var certificates = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "syslog-test")
	if err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return "", err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	err = os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}), 0o600)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := certificates(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	dir, err := certificates()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, _ := os.ReadFile(filepath.Join(dir, "cert.pem"))
	pool.AppendCertsFromPEM(text)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
}

// source is a log that a forwarder reads.
type source struct {
	t    *testing.T
	dir  string
	w    *logs.Writer
	e    logs.Encoder
	warn chan string
}

var noon = time.Date(2026, 11, 3, 12, 0, 0, 120_000_000, time.Local)

func newSource(t *testing.T) *source {
	t.Helper()
	s := &source{t: t, dir: t.TempDir(), e: local.Format{}.NewEncoder(), warn: make(chan string, 1000)}
	w, err := logs.OpenWriter(s.path(), logs.Limits{MaxSize: 20_000, MaxFiles: 1000, Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	s.w = w
	t.Cleanup(func() { w.Close(); w.Stop() })
	return s
}

func (s *source) path() string { return filepath.Join(s.dir, "x.log") }

func (s *source) say(stream, text string) {
	if s.w.Room() == 0 {
		if err := s.w.Rotate(s.w.Inode()); err != nil {
			s.t.Error(err)
		}
		s.w.Rotated()
	}
	s.e.Set(stream, nil, noon)
	if err := s.w.Append(s.e.Append(nil, []byte(text), false)); err != nil {
		s.t.Error(err)
	}
}

// forward runs a forwarder until stop or finish is called: finish lets it send
// what is there.
func (s *source) forward(options map[string]string) (stop, finish func()) {
	s.t.Helper()
	o, err := Parse(options)
	if err != nil {
		s.t.Fatal(err)
	}
	f := Forwarder{Options: o, Tag: "tag", Log: s.path(), Progress: s.dir + "/sent", Warn: func(text string, args ...any) {
		s.warn <- text + fmt.Sprint(args...)
	}}
	ctx, cancel := context.WithCancel(s.t.Context())
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := f.Run(ctx, done); err != nil && ctx.Err() == nil {
			s.t.Error(err)
		}
	}()
	end := sync.OnceFunc(func() { cancel(); <-ended })
	s.t.Cleanup(end)
	return end, func() {
		s.t.Helper()
		close(done)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			s.t.Error("not finished within 20 seconds")
		}
	}
}

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
				s := newSource(t)
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
// arrives, in order but for those that are sent again.
func TestServerThatComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp+tls", "unix", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, network, "")
			s := newSource(t)
			_, finish := s.forward(map[string]string{"syslog-address": server.option(), "syslog-tls-skip-verify": "true"})
			line := 0
			for range 5 {
				for range 2000 {
					line++
					s.say("stdout", strconv.Itoa(line))
				}
				if m := server.next(); m == "" {
					t.Fatal("empty")
				}
				server.close()
				if network == "unixgram" {
					_ = os.Remove(server.address)
				}
				line++
				s.say("stdout", strconv.Itoa(line))
				server.listen(server.address)
			}
			finish()
			seen := map[int]bool{}
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
			if missing > line/2 {
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
	s := newSource(t)
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
	s := newSource(t)
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
		s := newSource(t)
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
	s := newSource(t)
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
