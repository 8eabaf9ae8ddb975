package registry

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writePair(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "first")
	c := &certificate{files: TLS{Cert: cert, Key: key}, log: slog.New(slog.DiscardHandler)}
	name := func() string {
		t.Helper()
		c.look = time.Time{} // as if time had passed
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Error(got)
	}
	writePair(t, dir, "second")
	if err := os.Chtimes(cert, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second" {
		t.Errorf("after a renewal %q is shown", got)
	}
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second" {
		t.Errorf("half a certificate replaced %q", got)
	}
	for _, files := range []TLS{{cert, key, ""}, {key, key, ""}, {"nowhere", key, ""}} {
		if _, err := files.Config(slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v was accepted", files)
		}
	}
}

func TestTLSWantsTheClientsCertificateIfSaidSo(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "x")
	log := slog.New(slog.DiscardHandler)
	conf, err := TLS{Cert: cert, Key: key, ClientCA: cert}.Config(log)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), log)
	s.TLSConfig = conf
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go s.ServeTLS(l, "", "")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if resp, err := client.Get("https://" + l.Addr().String()); err == nil {
		resp.Body.Close()
		t.Error("a client without a certificate was let in")
	}
}

// deadlines is a connection that remembers what deadlines it was given.
type deadlines struct {
	*httptest.ResponseRecorder
	write, read []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = append(d.write, t); return nil }
func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = append(d.read, t); return nil }

func TestDeadlinesMoveWithTheClient(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	w := newResponse(d)
	w.WriteHeader(http.StatusNoContent)
	if len(d.write) != 1 || time.Until(d.write[0]) < sliceTime/2 {
		t.Errorf("an answer without a body: %v", d.write)
	}
	d.write = nil
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(3*slice + 1); err != nil {
		t.Fatal(err)
	}
	d.ResponseRecorder = httptest.NewRecorder()
	w = newResponse(d)
	if n, err := w.ReadFrom(io.LimitReader(f, 1<<40)); n != 3*slice+1 || err != nil || w.bytes != n {
		t.Errorf("%d of %d bytes, %v", n, 3*slice+1, err)
	}
	if len(d.write) != 4 {
		t.Errorf("four slices, %d deadlines", len(d.write))
	}
	b := &body{Reader: strings.NewReader("text"), control: http.NewResponseController(d)}
	if _, err := io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	if len(d.read) < 2 || d.read[0].IsZero() || !d.read[len(d.read)-1].IsZero() {
		t.Errorf("%v: a deadline while it comes, none afterwards", d.read)
	}
}

func TestFilesAreHandedToTheConnection(t *testing.T) {
	var got io.Reader
	w := newResponse(readerFrom{httptest.NewRecorder(), &got})
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := w.ReadFrom(io.LimitReader(f, 10)); err != nil {
		t.Fatal(err)
	}
	// What sendfile(2) needs to see: a file, at most limited.
	if l, ok := got.(*io.LimitedReader); !ok || l.R != io.Reader(f) {
		t.Errorf("the connection was given a %T", got)
	}
}

type readerFrom struct {
	http.ResponseWriter
	got *io.Reader
}

func (r readerFrom) ReadFrom(src io.Reader) (int64, error) { *r.got = src; return 0, nil }

func TestConnectionsThatAreKeptServeMany(t *testing.T) {
	h := newHarness(t, nil)
	h.pushBlob("r", "x")
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, request := range []string{"GET /v2/", "HEAD /v2/r/blobs/x", "GET /v2/r/tags/list", "POST /v2/r/blobs/uploads/", "GET /v2/"} {
		if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(request, " ")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
