package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"berth/internal/fault"
)

// exchange is one request and its answer. It is the ResponseWriter that handlers
// see, so that the version travels with it and an error knows whether the answer
// has started.
type exchange struct {
	http.ResponseWriter
	r       *http.Request
	api     *API
	version apiVersion
	form    url.Values // parsed query, filled by query
	unknown []string   // fields of the body that have no place in the API, filled by decode
	started bool       // a status line has been written, or the connection taken over
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader notes that the answer has started.
func (x *exchange) WriteHeader(code int) {
	x.started = true
	x.ResponseWriter.WriteHeader(code)
}

// Write notes that the answer has started.
func (x *exchange) Write(p []byte) (int, error) {
	x.started = true
	return x.ResponseWriter.Write(p)
}

// Flush sends what was written so far.
func (x *exchange) Flush() {
	x.started = true
	if f, ok := x.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// ctx ends when the client goes away.
func (x *exchange) ctx() context.Context { return x.r.Context() }

// stream returns a context for an answer without a foreseeable end: it is done
// when the client goes away or the server shuts down.
func (x *exchange) stream() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(x.r.Context())
	stop := context.AfterFunc(x.api.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// abort breaks the connection, which tells the client that a started answer is
// not complete. It does not return.
func (x *exchange) abort() { panic(http.ErrAbortHandler) }

// path returns a named part of the path.
func (x *exchange) path(name string) string { return x.r.PathValue(name) }

// query returns a query parameter, "" when it is missing.
func (x *exchange) query(key string) string {
	x.parse()
	return x.form.Get(key)
}

// queries returns all values of a query parameter.
func (x *exchange) queries(key string) []string {
	x.parse()
	return x.form[key]
}

func (x *exchange) parse() {
	if x.form == nil {
		x.form = x.r.URL.Query()
	}
}

// flag reads a truth value the way docker does: everything but nothing, 0, no,
// false and none is true.
func (x *exchange) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(x.query(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a value for a missing parameter.
func (x *exchange) flagOr(key string, missing bool) bool {
	if x.parse(); !x.form.Has(key) {
		return missing
	}
	return x.flag(key)
}

// number reads an optional whole number; nil when it is missing.
func (x *exchange) number(key string) (*int, error) {
	s := x.query(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, badQuery(key, s, "is not a whole number")
	}
	return &n, nil
}

// badQuery names a query parameter which cannot be read.
func badQuery(key, value, why string) error {
	return fault.New(fault.Invalid, "", "", "invalid value for %q: %q %s", key, value, why)
}

// buffers are reused between answers: touching fresh memory is dear.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled bounds what one large answer leaves behind in the pool, in bytes.
const maxPooled = 64 << 10

// reply answers with a status and v as JSON, in one write with a known length.
func (x *exchange) reply(status int, v any) error {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	defer func() {
		if b.Cap() <= maxPooled {
			buffers.Put(b)
		}
	}()
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fault.Wrap("encode answer", "", err)
	}
	h := x.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(b.Len())}
	x.WriteHeader(status)
	// A failed write means that the client is gone: there is nobody to tell.
	_, _ = x.Write(b.Bytes())
	return nil
}

var jsonType = []string{"application/json"}

// done answers with a status and no body.
func (x *exchange) done(status int) error {
	x.WriteHeader(status)
	return nil
}

// tail writes the body of an answer whose headers are out.
func (x *exchange) tail(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap("encode answer", "", err)
	}
	_, _ = x.Write(append(b, '\n'))
	return nil
}
