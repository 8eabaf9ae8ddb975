package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/fault"
)

// longestSocket is what a unix address holds, in bytes, without the final zero.
const longestSocket = 107

// listener is one address that the API is served on.
type listener struct {
	net.Listener
	address string      // as a client writes it
	path    string      // of a unix socket
	file    os.FileInfo // the socket file that this process made
	remote  bool        // reachable by others than local users
}

// String returns the address as a client writes it.
func (l *listener) String() string { return l.address }

// remove deletes the socket file, unless another engine has replaced it.
func (l *listener) remove() {
	if l.path == "" {
		return
	}
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		_ = os.Remove(l.path)
	}
}

func closeAll(ls []*listener) {
	for _, l := range ls {
		l.Close()
		l.remove()
	}
}

// listen opens all addresses; on an error the ones opened so far are returned
// with it.
func (o *options) listen() ([]*listener, error) {
	var ls []*listener
	for _, host := range o.hosts {
		if which, ok := strings.CutPrefix(host, "fd://"); ok {
			passed, err := o.listenInherited(which)
			if ls = append(ls, passed...); err != nil {
				return ls, err
			}
			continue
		}
		l, err := o.listenOn(host)
		if err != nil {
			return ls, err
		}
		ls = append(ls, l)
	}
	return ls, nil
}

func (o *options) listenOn(host string) (*listener, error) {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "", host
	}
	switch scheme {
	case "unix":
		if !filepath.IsAbs(rest) {
			return nil, fault.New(fault.Invalid, "", "", "address %q: the path must be absolute, as in unix:///run/berth/berth.sock", host)
		}
		gid, err := groupID(o.group)
		if err != nil {
			return nil, err
		}
		return listenUnix(filepath.Clean(rest), gid)
	case "tcp":
		u, err := url.Parse(host)
		if err != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
			return nil, fault.New(fault.Invalid, "", "", "address %q is not of the form tcp://HOST:PORT", host)
		}
		return o.listenTCP(u.Hostname(), u.Port())
	}
	return nil, fault.New(fault.Invalid, "", "", "address %q: the scheme must be unix, tcp or fd", host)
}

// listenUnix makes a socket which appears under its path with its owner and
// mode, in place of one that nobody serves any more.
func listenUnix(path string, gid int) (*listener, error) {
	if len(path) > longestSocket {
		return nil, fault.New(fault.Invalid, "listen on", path, "the path has %d bytes, and a socket address holds %d", len(path), longestSocket).
			WithHint("choose a shorter --run directory")
	}
	if err := checkFree(path); err != nil {
		return nil, err
	}
	// Bound under another name and renamed, so that nobody ever sees it with
	// the wrong mode and a dead socket is replaced in one step.
	tmp := filepath.Join(filepath.Dir(path), ".s"+strconv.FormatInt(int64(os.Getpid()), 36))
	_ = os.Remove(tmp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fault.New(fault.Invalid, "listen on", path, "%w", err)
	}
	ln.SetUnlinkOnClose(false)
	l := &listener{Listener: ln, address: "unix://" + path, path: path}
	err = errors.Join(os.Chmod(tmp, 0o660), os.Chown(tmp, 0, gid))
	if err == nil {
		l.file, err = os.Lstat(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		ln.Close()
		_ = os.Remove(tmp)
		return nil, fault.Wrap("listen on", path, err)
	}
	return l, nil
}

// checkFree refuses a path where somebody listens or where something else than
// a socket is.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Invalid, "listen on", path, "%w", err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fault.New(fault.Conflict, "listen on", path, "something else than a socket is there")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
		return fault.New(fault.Conflict, "listen on", path, "another program serves there").WithHint("stop it, or choose another address with -H")
	}
	return nil
}

// groupID returns the id of the group which may use the sockets: 0 when name is
// that of an optional group (marked by "?") which does not exist.
func groupID(name string) (int, error) {
	name, optional := strings.CutPrefix(name, "?")
	if id, err := strconv.Atoi(name); err == nil && id >= 0 {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if optional {
			return 0, nil
		}
		return 0, fault.New(fault.Invalid, "", "", "--group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

func (o *options) listenTCP(host, port string) (*listener, error) {
	secure := o.tls || o.tlsVerify
	if port == "" {
		if port = "2375"; secure {
			port = "2376"
		}
	}
	addr := net.JoinHostPort(host, port)
	conf, err := o.protection(isLoopback(host), addr)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fault.New(fault.Invalid, "listen on", "tcp://"+addr, "%w", err)
	}
	l := &listener{Listener: ln, address: "tcp://" + ln.Addr().String(), remote: true}
	if conf != nil {
		l.Listener = tls.NewListener(ln, conf)
	}
	return l, nil
}

// protection returns how an address on a network is protected: nil when it is not,
// which has to be asked for where others reach it.
func (o *options) protection(loopback bool, addr string) (*tls.Config, error) {
	if o.tls || o.tlsVerify {
		return o.tlsConfig()
	}
	if !loopback && !o.tlsGiven {
		return nil, fault.New(fault.Invalid, "", "", "tcp://%s without TLS gives everybody who reaches it root on this machine", addr).
			WithHint("use --tlsverify, or say --tls=false if that is what you want")
	}
	return nil, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// tlsConfig speaks HTTP/1.1 only: attach and exec take connections over, which
// HTTP/2 cannot give.
func (o *options) tlsConfig() (*tls.Config, error) {
	if o.tlsCert == "" || o.tlsKey == "" {
		return nil, fault.New(fault.Invalid, "", "", "TLS needs --tlscert and --tlskey")
	}
	cert, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, fault.New(fault.Invalid, "load certificate", o.tlsCert, "%w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !o.tlsVerify {
		return conf, nil
	}
	if o.tlsCA == "" {
		return nil, fault.New(fault.Invalid, "", "", "--tlsverify needs --tlscacert")
	}
	pem, err := os.ReadFile(o.tlsCA)
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "", "--tlscacert: %w", err)
	}
	conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "", "", "--tlscacert %s holds no certificate", o.tlsCA)
	}
	return conf, nil
}
