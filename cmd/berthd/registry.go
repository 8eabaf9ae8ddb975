package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"berth/internal/fault"
	"berth/internal/registry"
	"berth/internal/registry/store/local"
)

// runRegistry is `berthd registry` from its arguments to its end.
func runRegistry(args []string, out io.Writer) error {
	o, err := parseRegistry(args, out)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.level}))
	if o.collect {
		return o.collectGarbage(log, out)
	}
	stop := catchSignals(log)
	storage, err := local.OpenDir(o.file.Root, log)
	if err != nil {
		return err
	}
	err = o.serveRegistry(storage, stop, log)
	return errors.Join(err, storage.Close())
}

// accessLogger returns the logger for requests, nil for none.
func (o *registryOptions) accessLogger() *slog.Logger {
	switch o.file.AccessLog {
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stdout, nil))
	case "off":
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stdout, nil))
}

// serveRegistry serves until stop is closed or serving fails.
func (o *registryOptions) serveRegistry(storage *local.Store, stop <-chan struct{}, log *slog.Logger) error {
	cfg, err := o.file.Config()
	if err != nil {
		return err
	}
	cfg.Storage, cfg.Log, cfg.Access = storage, log, o.accessLogger()
	r, err := registry.New(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	server := registry.NewServer(r, log)
	listener, scheme, err := o.listen(server, log)
	if err != nil {
		return err
	}
	control, err := listenControl(o.file.Root)
	if err != nil {
		listener.Close()
		return err
	}
	failed := make(chan error, 2)
	commands := &http.Server{Handler: controlHandler(r)}
	go func() { failed <- commands.Serve(control) }()
	if o.file.TLS.Cert != "" {
		go func() { failed <- server.ServeTLS(listener, "", "") }()
	} else {
		go func() { failed <- server.Serve(listener) }()
	}
	log.Info("serving the registry", "address", scheme+"://"+listener.Addr().String(), "root", o.file.Root)
	select {
	case <-stop:
	case err = <-failed:
		log.Error("serving failed", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range []*http.Server{server, commands} {
		wg.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close() // unfinished uploads go on at their next request
			}
		})
	}
	wg.Wait()
	log.Info("the registry has stopped")
	return err
}

func (o *registryOptions) listen(server *http.Server, log *slog.Logger) (net.Listener, string, error) {
	scheme := "http"
	if o.file.TLS.Cert != "" {
		conf, err := registry.TLS{Cert: o.file.TLS.Cert, Key: o.file.TLS.Key, ClientCA: o.file.TLS.ClientCA}.Config(log)
		if err != nil {
			return nil, "", err
		}
		server.TLSConfig, scheme = conf, "https"
	}
	l, err := net.Listen("tcp", o.file.Listen)
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "listen on", o.file.Listen, "%w", err)
	}
	return l, scheme, nil
}

// controlName is the socket over which `berthd registry gc` speaks to a server
// on the same directory; only the directory's owner can.
const controlName = "control.sock"

// listenControl makes the socket. The database's lock says that no other server
// lives here, so one that is there is a dead one's. Where the path is too long
// for a socket's address, the directory's descriptor stands in for it.
func listenControl(root string) (net.Listener, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, fault.Wrap("open registry", root, err)
	}
	defer dir.Close()
	if err := os.Remove(filepath.Join(root, controlName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap("open registry", root, err)
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName))
	if err != nil {
		return nil, fault.Wrap("open registry", root, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the name will mean nothing then
	return l, os.Chmod(filepath.Join(root, controlName), 0o600)
}

// dialControl reaches the server of a directory, if one lives.
func dialControl(ctx context.Context, root string) (net.Conn, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName))
}
