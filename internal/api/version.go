package api

import (
	"strconv"
	"strings"

	"berth/internal/fault"
)

// apiVersion is a version of the API as 1000*major+minor.
type apiVersion int

// The versions served. Docker 29 raised its floor and broke many tools; the
// floor here is the oldest version whose shapes today's types can express.
const (
	oldest apiVersion = 1024
	newest apiVersion = 1056 // what the moby/api module in go.mod describes
)

// String returns the version as clients write it.
func (v apiVersion) String() string {
	return strconv.Itoa(int(v/1000)) + "." + strconv.Itoa(int(v%1000))
}

// before reports whether v is older than 1.minor.
func (v apiVersion) before(minor int) bool { return v < apiVersion(1000+minor) }

// check refuses versions outside of what is served, in docker's words: clients
// look for them.
func (v apiVersion) check() error {
	if v < oldest {
		return fault.New(fault.Invalid, "", "", "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, oldest)
	}
	if v > newest {
		return fault.New(fault.Invalid, "", "", "client version %s is too new. Maximum supported API version is %s", v, newest)
	}
	return nil
}

// cutVersion splits "/v1.44/info" into the version and "/info". named is false
// when the path does not start with a version.
func cutVersion(path string) (v apiVersion, rest string, named bool) {
	if len(path) < 3 || path[0] != '/' || path[1] != 'v' || path[2] < '0' || path[2] > '9' {
		return 0, path, false
	}
	end := strings.IndexByte(path[1:], '/') + 1
	if end == 0 {
		end = len(path)
	}
	v, ok := parseVersion(path[2:end])
	if !ok {
		return 0, path, false
	}
	if end == len(path) {
		return v, "/", true
	}
	return v, path[end:], true
}

// parseVersion reads "1.44"; further parts ("1.44.1") are ignored.
func parseVersion(s string) (apiVersion, bool) {
	majorText, minorText, _ := strings.Cut(s, ".")
	minorText, _, _ = strings.Cut(minorText, ".")
	major, err := strconv.ParseUint(majorText, 10, 16)
	if err != nil {
		return 0, false
	}
	minor := uint64(0)
	if minorText != "" {
		if minor, err = strconv.ParseUint(minorText, 10, 16); err != nil {
			return 0, false
		}
	}
	return apiVersion(major*1000 + min(minor, 999)), true
}
