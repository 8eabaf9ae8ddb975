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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/local"
)

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

func newSource(t *testing.T, fileSize int64) *source {
	t.Helper()
	s := &source{t: t, dir: t.TempDir(), e: local.Format{}.NewEncoder(), warn: make(chan string, 1000)}
	w, err := logs.OpenWriter(s.path(), logs.Limits{MaxSize: fileSize, MaxFiles: 1000, Compress: true})
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
