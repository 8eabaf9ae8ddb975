package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"berth/internal/api"
	"berth/internal/fault"
)

// grace bounds how long running requests may go on after a signal.
const grace = 5 * time.Second

// catchSignals returns a channel which is closed by SIGTERM or SIGINT; a second
// one ends the process at once, which is safe at any instant. On SIGHUP every
// reload is called, if there is any.
func catchSignals(log *slog.Logger, reloads ...func() error) <-chan struct{} {
	// SIGPIPE is caught and dropped, not ignored: an ignored signal would stay
	// ignored in the monitor and in every container.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	in := make(chan os.Signal, 1)
	signal.Notify(in, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	stop := make(chan struct{})
	go func() {
		stopping := false
		for sig := range in {
			switch {
			case sig == syscall.SIGHUP:
				reload(log, reloads)
			case stopping:
				os.Exit(1)
			default:
				stopping = true
				log.Info("stopping", "signal", sig.String())
				close(stop)
			}
		}
	}()
	return stop
}

// reload reads again what can be read while the engine runs.
func reload(log *slog.Logger, reloads []func() error) {
	if len(reloads) == 0 {
		log.Info("SIGHUP ignored: the configuration is read at start only")
	}
	for _, again := range reloads {
		if err := again(); err != nil {
			log.Error("the configuration cannot be read again; what was in force stays", "error", err)
		}
	}
}

// serveUntil serves on all listeners until stop is closed or one of them fails.
func serveUntil(stop <-chan struct{}, a *api.API, listeners []*listener, log *slog.Logger) error {
	failed := make(chan error, len(listeners))
	servers := make([]*http.Server, len(listeners))
	for i, l := range listeners {
		servers[i] = newServer(a, l.remote, log)
		go func() { failed <- servers[i].Serve(l) }()
	}
	var err error
	select {
	case <-stop:
	case err = <-failed:
		log.Error("serving failed", "error", err)
	}
	a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
		})
	}
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serveMetrics serves the figures, and nothing else, on their own address until
// the process ends: collectors need no way to the API, which is as good as root.
func (o *options) serveMetrics(a *api.API, log *slog.Logger) error {
	if o.metrics == "" {
		return nil
	}
	ln, err := net.Listen("tcp", o.metrics)
	if err != nil {
		return fault.New(fault.Invalid, "serve metrics on", o.metrics, "%w", err).WithHint("choose another HOST:PORT")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a)
	s := newServer(a, true, log)
	s.Handler = mux
	go func() { _ = s.Serve(ln) }()
	log.Info("serving the metrics", "address", "http://"+ln.Addr().String()+"/metrics")
	return nil
}

// newServer returns a server for one kind of listener: local users are trusted
// not to hold connections open, others are not.
func newServer(a *api.API, remote bool, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:     a,
		ConnContext: api.ConnContext,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:   new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	if remote {
		s.ReadHeaderTimeout = 30 * time.Second
		s.IdleTimeout = 10 * time.Minute
	}
	return s
}
