package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/registry"
	"berth/internal/registry/store/local"
	"berth/internal/transfer"

	"github.com/opencontainers/go-digest"
)

// ownRegistry is the registry that the engine serves from its own stores. The
// storage is always there, because what was once pushed to it must be kept; the
// server is only when an address is given.
type ownRegistry struct {
	storage *local.Store
	serving *registry.Registry // nil: nobody is served
	server  *http.Server
	address *net.TCPAddr
}

// registryGrace bounds how long requests to the registry may go on when the
// engine ends; uploads go on at the next one.
const registryGrace = 5 * time.Second

// openRegistry opens the registry's storage, which makes it an owner of blobs.
func (e *Engine) openRegistry() (err error) {
	e.own.storage, err = local.Open(e.content, e.db, e.log)
	return err
}

// serveRegistry begins to serve, if that is configured.
func (e *Engine) serveRegistry() error {
	c := &e.cfg.Registry
	file := &registry.File{}
	if c.ServeFile != "" {
		var err error
		if file, err = registry.LoadFile(c.ServeFile); err != nil {
			return err
		}
		if file.Root != "" {
			return fault.New(fault.Invalid, "read registry configuration", c.ServeFile, "root: the engine's registry keeps everything in the engine's own store").
				WithHint("leave it out, or run a registry of its own with berth registry serve")
		}
	}
	listen := cmp.Or(c.Serve, file.Listen)
	if listen == "" {
		if c.ServeFile != "" {
			return fault.New(fault.Invalid, "read registry configuration", c.ServeFile, "no address to listen on is given there, nor with --registry-listen")
		}
		return nil
	}
	if err := e.newRegistry(file); err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fault.New(fault.Invalid, "serve the registry on", listen, "%w", err)
	}
	serve := e.own.server.Serve
	scheme := "http"
	if e.own.server.TLSConfig != nil {
		serve, scheme = func(l net.Listener) error { return e.own.server.ServeTLS(l, "", "") }, "https"
	}
	e.own.address, _ = l.Addr().(*net.TCPAddr)
	e.log.Info("serving the registry", "address", scheme+"://"+l.Addr().String())
	e.work.Go(func() {
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("serving the registry failed", "error", err)
		}
	})
	return nil
}

// newRegistry makes registry and server from a configuration.
func (e *Engine) newRegistry(file *registry.File) error {
	cfg, err := file.Config()
	if err != nil {
		return err
	}
	cfg.Storage, cfg.Log = e.own.storage, e.log
	switch file.AccessLog {
	case "", "off":
	case "text":
		cfg.Access = slog.New(slog.NewTextHandler(os.Stdout, nil))
	case "json":
		cfg.Access = slog.New(slog.NewJSONHandler(os.Stdout, nil))
	default:
		return fault.New(fault.Invalid, "read registry configuration", e.cfg.Registry.ServeFile, "access-log %q is none of text, json, off", file.AccessLog)
	}
	if e.own.serving, err = registry.New(cfg); err != nil {
		return err
	}
	e.own.server = registry.NewServer(e.own.serving, e.log)
	if file.TLS.Cert == "" {
		return nil
	}
	e.own.server.TLSConfig, err = registry.TLS{Cert: file.TLS.Cert, Key: file.TLS.Key, ClientCA: file.TLS.ClientCA}.Config(e.log)
	return err
}

// endRegistry stops serving. It comes before the stores are closed.
func (e *Engine) endRegistry() {
	if e.own.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), registryGrace)
	defer cancel()
	if e.own.server.Shutdown(ctx) != nil {
		_ = e.own.server.Close()
	}
}

// closeRegistry closes what endRegistry has stopped.
func (e *Engine) closeRegistry() error {
	var errs []error
	if e.own.serving != nil {
		errs = append(errs, e.own.serving.Close())
	}
	if e.own.storage != nil {
		errs = append(errs, e.own.storage.Close())
	}
	return errors.Join(errs...)
}

// localRegistry returns the engine's own registry if it serves at host:port as
// it stands in image names: what is pushed there needs not be sent.
func (e *Engine) localRegistry(hostport string) transfer.LocalRegistry {
	if e.own.serving == nil || e.own.address == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || port != itoa(e.own.address.Port) || !e.isOwnHost(host) {
		return nil
	}
	return e.own.serving
}

// isOwnHost reports whether a host is this machine, at an address on which the
// registry listens. A name other than the loopback's is not looked up: whoever
// answers for it could be anywhere.
func (e *Engine) isOwnHost(host string) bool {
	on := e.own.address.IP
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return on.IsUnspecified() || on.IsLoopback()
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	if ip == nil {
		return false
	}
	if !on.IsUnspecified() {
		return ip.Equal(on)
	}
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// registryUses reports whether the engine's own registry keeps a blob.
func (e *Engine) registryUses(ctx context.Context, d digest.Digest) bool {
	used := false
	err := e.own.storage.Holders(ctx, d, func(string) bool { used = true; return false })
	return used || err != nil
}
