package registry

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"berth/internal/fault"
)

// NewServer returns a server that keeps clients within bounds: small headers,
// soon. Bodies have deadlines of their own that move with them, so there is none
// for a whole request. HTTP/2 is not offered: one TCP connection for all of a
// client's layers, with windows of its own, is slower than one for each.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// TLS names the files of a server's certificate.
type TLS struct {
	Cert, Key string
	ClientCA  string // "": clients need no certificate
}

// reloadEvery is how often the files are looked at, at most.
const reloadEvery = 2 * time.Second

// certificate is a pair of files that is read again when one of them changes.
type certificate struct {
	files TLS
	log   *slog.Logger

	mu     sync.Mutex // guards the fields below
	pair   *tls.Certificate
	stamps [2]fileStamp
	look   time.Time
}

type fileStamp struct {
	size int64
	time time.Time
}

func stamp(path string) fileStamp {
	fi, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{fi.Size(), fi.ModTime()}
}

// Config returns the configuration of a listener. A renewed certificate is used
// for the connections that come after it was written; one that cannot be read
// leaves the old one in use.
func (t TLS) Config(log *slog.Logger) (*tls.Config, error) {
	const op = "load TLS certificate"
	c := &certificate{files: t, log: log, stamps: [2]fileStamp{stamp(t.Cert), stamp(t.Key)}, look: time.Now()}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, t.Cert, "%w", err)
	}
	c.pair = &pair
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
	if t.ClientCA != "" {
		text, err := os.ReadFile(t.ClientCA)
		if err != nil {
			return nil, fault.New(fault.Invalid, op, "", "%w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, op, t.ClientCA, "holds no certificate")
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.look) < reloadEvery {
		return c.pair, nil
	}
	c.look = time.Now()
	stamps := [2]fileStamp{stamp(c.files.Cert), stamp(c.files.Key)}
	if stamps == c.stamps {
		return c.pair, nil
	}
	// Certificate and key are two files: between the renewal of one and of the
	// other they do not fit, and we look again.
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		c.log.Warn("registry: the renewed certificate cannot be used; the old one is", "cert", c.files.Cert, "error", err)
		return c.pair, nil
	}
	c.pair, c.stamps = &pair, stamps
	c.log.Info("registry: the certificate was renewed", "cert", c.files.Cert)
	return c.pair, nil
}
