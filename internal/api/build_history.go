package api

import (
	"net/http"
	"strconv"
	"unsafe"

	"berth/internal/engine/builds"
	"berth/internal/engine/filter"

	"golang.org/x/sys/unix"
)

// peerGroups returns the supplementary groups of a socket's other end.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return groups[:size/4], nil
		case e != unix.ERANGE:
			return nil, e
		}
		groups = make([]uint32, size/4)
	}
}

func listBuilds(x *exchange) error {
	all, err := x.api.engine.BuildHistory().List()
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, all)
}

// buildID is the id in the path, "" for the newest build.
func (x *exchange) buildID() string {
	if id := x.path("id"); id != "newest" {
		return id
	}
	return ""
}

func inspectBuild(x *exchange) error {
	b, err := x.api.engine.BuildHistory().Get(x.buildID())
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, b)
}

func removeBuild(x *exchange) error {
	h := x.api.engine.BuildHistory()
	b, err := h.Get(x.path("id"))
	if err != nil {
		return err
	}
	if err := h.Remove(b.ID); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// buildLogs answers with the output of a build as plain text.
func buildLogs(x *exchange) error {
	b, err := x.api.engine.BuildHistory().Get(x.buildID())
	if err != nil {
		return err
	}
	x.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return x.api.engine.BuildHistory().Logs(b.ID, x)
}

// buildTrace answers with the timeline of a build: form says whether as a picture
// or, which is the default, as a trace for Chrome.
func buildTrace(x *exchange) error {
	b, err := x.api.engine.BuildHistory().Get(x.buildID())
	if err != nil {
		return err
	}
	switch form := x.query("form"); form {
	case "svg":
		x.Header().Set("Content-Type", "image/svg+xml")
		return builds.Picture(b, x)
	case "", "chrome":
		x.Header()["Content-Type"] = jsonType
		return x.api.engine.BuildHistory().Trace(b.ID, x)
	default:
		return badQuery("form", form, "is neither svg nor chrome")
	}
}

func buildCache(x *exchange) error {
	f, err := filter.Parse(x.query("filters"))
	if err != nil {
		return err
	}
	all, err := x.api.engine.BuildCache(x.ctx(), f)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, all)
}

// pruneBuilds removes from the build cache. keep-storage is what docker's clients
// before 1.48 say for reserved-space.
func pruneBuilds(x *exchange) error {
	f, err := x.pruneFilters()
	if err != nil {
		return err
	}
	o := builds.PruneOptions{All: x.flag("all"), Filters: f}
	for _, p := range []struct {
		key string
		to  *int64
	}{{"keep-storage", &o.Reserved}, {"reserved-space", &o.Reserved}, {"max-used-space", &o.MaxUsed}, {"min-free-space", &o.MinFree}} {
		if v := x.query(p.key); v != "" {
			if *p.to, err = strconv.ParseInt(v, 10, 64); err != nil || *p.to < 0 {
				return badQuery(p.key, v, "is not a number of bytes")
			}
		}
	}
	r, err := x.api.engine.BuildPrune(x.ctx(), o)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, r)
}
