package client

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"

	"berth/internal/fault"
)

// TLSOptions say how a tcp address is secured.
type TLSOptions struct {
	Verify        bool   // refuse an engine whose certificate CA does not vouch for
	CA, Cert, Key string // files; those that are "" are left out
}

// TLSFromEnvironment returns the options of BERTH_TLS_VERIFY or
// DOCKER_TLS_VERIFY and of BERTH_CERT_PATH or DOCKER_CERT_PATH, nil when
// neither asks for TLS.
func TLSFromEnvironment() *TLSOptions {
	verify := firstEnv("BERTH_TLS_VERIFY", "DOCKER_TLS_VERIFY")
	if verify == "" && firstEnv("BERTH_TLS", "DOCKER_TLS") == "" {
		return nil
	}
	o := &TLSOptions{Verify: verify != ""}
	o.FillFrom(CertificateDirectory())
	return o
}

// CertificateDirectory returns the directory of certificates that the environment
// names, "" when it names none.
func CertificateDirectory() string { return firstEnv("BERTH_CERT_PATH", "DOCKER_CERT_PATH") }

func firstEnv(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// FillFrom sets the files that are not set to those of a directory with docker's
// names, where they exist; "" means ~/.docker.
func (o *TLSOptions) FillFrom(dir string) {
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return
		}
		dir = filepath.Join(home, ".docker")
	}
	for name, field := range map[string]*string{"ca.pem": &o.CA, "cert.pem": &o.Cert, "key.pem": &o.Key} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); *field == "" && err == nil {
			*field = path
		}
	}
}

func (o *TLSOptions) config(address string) (*tls.Config, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		name = address
	}
	config := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !o.Verify}
	if o.CA != "" && o.Verify {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read certificate authority", "", "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, "read certificate authority", o.CA, "no certificate in the file")
		}
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, fault.New(fault.Invalid, "TLS", "", "a client certificate needs both its certificate and its key")
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read client certificate", o.Cert, "%w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
