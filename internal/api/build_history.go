package api

import (
	"net/http"
	"strconv"
	"unsafe"

	"berth/internal/engine"

	api "github.com/moby/moby/api/types/build"
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

func inspectBuild(x *exchange) error {
	b, err := x.api.engine.BuildHistory().Get(x.path("id"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, b)
}

func removeBuild(x *exchange) error {
	if err := x.api.engine.BuildHistory().Remove(x.path("id")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

// buildLogs answers with the output of a build as plain text.
func buildLogs(x *exchange) error {
	if _, err := x.api.engine.BuildHistory().Get(x.path("id")); err != nil {
		return err
	}
	x.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return x.api.engine.BuildHistory().Logs(x.path("id"), x)
}

// buildTrace answers with the timeline of a build.
func buildTrace(x *exchange) error {
	if _, err := x.api.engine.BuildHistory().Get(x.path("id")); err != nil {
		return err
	}
	x.Header()["Content-Type"] = jsonType
	return x.api.engine.BuildHistory().Trace(x.path("id"), x)
}

func buildCache(x *exchange) error {
	all, err := x.api.engine.BuildCache(x.ctx())
	if err != nil {
		return err
	}
	if all == nil {
		all = []api.CacheRecord{}
	}
	return x.reply(http.StatusOK, all)
}

// pruneBuilds removes from the build cache. keep-storage is what docker's clients
// before 1.48 say for reserved-space.
func pruneBuilds(x *exchange) error {
	f, err := engine.ParseFilters(x.query("filters"))
	if err != nil {
		return err
	}
	o := engine.BuildPruneOptions{All: x.flag("all"), Filters: f}
	for _, key := range []string{"keep-storage", "reserved-space", "max-used-space"} {
		if v := x.query(key); v != "" {
			if o.Keep, err = strconv.ParseInt(v, 10, 64); err != nil || o.Keep < 0 {
				return badQuery(key, v, "is not a number of bytes")
			}
		}
	}
	r, err := x.api.engine.BuildPrune(x.ctx(), o)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, r)
}
