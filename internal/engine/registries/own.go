package registries

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/registry"
	"berth/internal/registry/store/local"
	"berth/internal/transfer"

	"github.com/opencontainers/go-digest"
)

// Own is the registry that the engine serves from its own stores. The storage is
// always there, because what was once pushed to it must be kept; the server is only
// when an address is given.
type Own struct {
	cfg     Config
	log     *slog.Logger
	storage *local.Store
	serving *registry.Registry // nil: nobody is served
	server  *http.Server
	address *net.TCPAddr
	work    sync.WaitGroup // the server
}

// grace bounds how long requests to the registry may go on when the
// engine ends; uploads go on at the next one.
const grace = 5 * time.Second

// OpenOwn opens the registry's storage, which makes it an owner of blobs.
func OpenOwn(cfg Config, c *content.Store, db *metadata.DB, log *slog.Logger) (*Own, error) {
	storage, err := local.Open(c, db, log)
	if err != nil {
		return nil, err
	}
	return &Own{cfg: cfg, log: log, storage: storage}, nil
}

// Serve begins to serve, if that is configured.
func (o *Own) Serve() error {
	file := &registry.File{}
	if o.cfg.ServeFile != "" {
		var err error
		if file, err = registry.LoadFile(o.cfg.ServeFile); err != nil {
			return err
		}
		if file.Root != "" {
			return fault.New(fault.Invalid, "read registry configuration", o.cfg.ServeFile, "root: the engine's registry keeps everything in the engine's own store").
				WithHint("leave it out, or run a registry of its own with berth registry serve")
		}
	}
	listen := cmp.Or(o.cfg.Serve, file.Listen)
	if listen == "" {
		if o.cfg.ServeFile != "" {
			return fault.New(fault.Invalid, "read registry configuration", o.cfg.ServeFile, "no address to listen on is given there, nor with --registry-listen")
		}
		return nil
	}
	if err := o.prepare(file); err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fault.New(fault.Invalid, "serve the registry on", listen, "%w", err)
	}
	serve := o.server.Serve
	scheme := "http"
	if o.server.TLSConfig != nil {
		serve, scheme = func(l net.Listener) error { return o.server.ServeTLS(l, "", "") }, "https"
	}
	o.address, _ = l.Addr().(*net.TCPAddr)
	o.log.Info("serving the registry", "address", scheme+"://"+l.Addr().String())
	o.work.Go(func() {
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.log.Error("serving the registry failed", "error", err)
		}
	})
	return nil
}

// prepare makes registry and server from a configuration.
func (o *Own) prepare(file *registry.File) error {
	cfg, err := file.Config()
	if err != nil {
		return err
	}
	cfg.Storage, cfg.Log = o.storage, o.log
	switch file.AccessLog {
	case "", "off":
	case "text":
		cfg.Access = slog.New(slog.NewTextHandler(os.Stdout, nil))
	case "json":
		cfg.Access = slog.New(slog.NewJSONHandler(os.Stdout, nil))
	default:
		return fault.New(fault.Invalid, "read registry configuration", o.cfg.ServeFile, "access-log %q is none of text, json, off", file.AccessLog)
	}
	if o.serving, err = registry.New(cfg); err != nil {
		return err
	}
	o.server = registry.NewServer(o.serving, o.log)
	if file.TLS.Cert == "" {
		return nil
	}
	o.server.TLSConfig, err = registry.TLS{Cert: file.TLS.Cert, Key: file.TLS.Key, ClientCA: file.TLS.ClientCA}.Config(o.log)
	return err
}

// Stop stops serving. What is still pushed from here finds the registry until Close.
func (o *Own) Stop() {
	if o.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if o.server.Shutdown(ctx) != nil {
		_ = o.server.Close()
	}
	o.work.Wait()
}

// Close closes what Stop has stopped.
func (o *Own) Close() error {
	var errs []error
	if o.serving != nil {
		errs = append(errs, o.serving.Close())
	}
	return errors.Join(append(errs, o.storage.Close())...)
}

// At returns the engine's own registry if it serves at host:port as
// it stands in image names: what is pushed there needs not be sent.
func (o *Own) At(hostport string) transfer.LocalRegistry {
	if o.serving == nil || o.address == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || port != strconv.Itoa(o.address.Port) || !o.isHost(host) {
		return nil
	}
	return o.serving
}

// isHost reports whether a host is this machine, at an address on which the
// registry listens. A name other than the loopback's is not looked up: whoever
// answers for it could be anywhere.
func (o *Own) isHost(host string) bool {
	on := o.address.IP
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

// Keeps reports whether the registry keeps a blob.
func (o *Own) Keeps(ctx context.Context, d digest.Digest) bool {
	used := false
	err := o.storage.Holders(ctx, d, func(string) bool { used = true; return false })
	return used || err != nil
}
