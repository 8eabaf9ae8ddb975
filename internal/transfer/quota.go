package transfer

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// quota is what a registry lets one pull within a time, as Docker Hub tells
// with each manifest (headers RateLimit-Limit, RateLimit-Remaining and
// Docker-RateLimit-Source).
type quota struct {
	limit, left int64
	window      time.Duration // 0: it did not say
	source      string        // for whom it counts: an address or a user
}

// quotaOf reads an answer's headers; ok is false where there is no quota.
func quotaOf(h http.Header) (q quota, ok bool) {
	limit, window, ok1 := quotaValue(h.Get("RateLimit-Limit"))
	left, _, ok2 := quotaValue(h.Get("RateLimit-Remaining"))
	if !ok1 || !ok2 {
		return quota{}, false
	}
	source := h.Get("Docker-RateLimit-Source")
	if len(source) > 64 || strings.ContainsFunc(source, func(r rune) bool { return r < ' ' || r > '~' }) {
		source = ""
	}
	return quota{limit, left, window, source}, true
}

// quotaValue reads "100;w=21600".
func quotaValue(v string) (n int64, window time.Duration, ok bool) {
	number, rest, _ := strings.Cut(v, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 {
		return 0, 0, false
	}
	if w, found := strings.CutPrefix(strings.TrimSpace(rest), "w="); found {
		if seconds, err := strconv.ParseInt(w, 10, 32); err == nil && seconds > 0 {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}

// String is the status line about it.
func (q quota) String() string {
	s := fmt.Sprintf("%d pulls left of %d", q.left, q.limit)
	if q.window > 0 {
		s += " in " + shortDuration(q.window)
	}
	if q.source != "" {
		s += " for " + q.source
	}
	return s
}

// shortDuration writes whole hours, minutes or seconds as people do.
func shortDuration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// retryAfter returns how long the server asks to wait.
func retryAfter(res *http.Response) time.Duration {
	v := res.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}
