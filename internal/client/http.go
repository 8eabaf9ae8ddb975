package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"
)

// Limits on what an engine may answer before the body.
const (
	maxHeaderLine  = 64 << 10
	maxHeaderLines = 256
)

// errBroken marks a connection that ended before the answer was complete.
var errBroken = errors.New("the connection to the engine broke")

// Broken reports whether err means that the engine went away in the middle of a
// request, as opposed to having answered that it failed.
func Broken(err error) bool { return errors.Is(err, errBroken) }

func broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Unavailable, "", "", "%w", errBroken)
	}
	return fault.New(fault.Unavailable, "", "", "%w: %w", errBroken, err)
}

// header is an answer's header fields in the order they came, names lower case.
type header []struct{ name, value string }

// Get returns the first value of a field, "" when it is absent. The name must
// be lower case.
func (h header) Get(name string) string {
	for _, f := range h {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// conn is a connection with what has been read from it and not yet used.
type conn struct {
	net.Conn
	r    *bufio.Reader
	used bool // an answer has been read: a later failure may be a stale connection
}

// request is one HTTP request to be written.
type request struct {
	method, path string
	query        string
	contentType  string
	accept       string
	body         []byte
	stream       io.Reader // sent chunked when not nil, instead of body
	upgrade      bool      // ask to turn the connection into a raw stream
	auth         string    // X-Registry-Auth, "" for none
}

// send writes everything of the request but a streamed body.
func (rq *request) send(w net.Conn, host string) error {
	b := make([]byte, 0, 512+len(rq.body))
	b = append(b, rq.method...)
	b = append(b, ' ')
	b = append(b, rq.path...)
	if rq.query != "" {
		b = append(b, '?')
		b = append(b, rq.query...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\nUser-Agent: "...)
	b = append(b, userAgent()...)
	field := func(name, value string) {
		b = append(b, "\r\n"...)
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
	}
	if rq.upgrade {
		field("Connection", "Upgrade")
		field("Upgrade", "tcp")
	}
	if rq.contentType != "" {
		field("Content-Type", rq.contentType)
	}
	if rq.accept != "" {
		field("Accept", rq.accept)
	}
	if rq.auth != "" {
		field("X-Registry-Auth", rq.auth)
	}
	switch {
	case rq.stream != nil:
		field("Transfer-Encoding", "chunked")
	case len(rq.body) > 0 || rq.method == "POST" || rq.method == "PUT":
		field("Content-Length", strconv.Itoa(len(rq.body)))
	}
	b = append(b, "\r\n\r\n"...)
	b = append(b, rq.body...)
	_, err := w.Write(b)
	return err
}

// sendStream writes r as a chunked body.
func sendStream(w io.Writer, r io.Reader) error {
	buf := make([]byte, 256<<10)
	const room = 10 // for the length line, written in front of the data
	for {
		n, err := r.Read(buf[room : len(buf)-2])
		if n > 0 {
			length := strconv.AppendInt(nil, int64(n), 16)
			length = append(length, '\r', '\n')
			start := room - len(length)
			copy(buf[start:], length)
			copy(buf[room+n:], "\r\n")
			if _, werr := w.Write(buf[start : room+n+2]); werr != nil {
				return broken(werr)
			}
		}
		if err == io.EOF {
			if _, err = io.WriteString(w, "0\r\n\r\n"); err != nil {
				return broken(err)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// response is an answer whose body has not been read yet.
type response struct {
	status int
	header header
	body   io.Reader
	whole  bool // the body's end is marked, so the connection can be used again
}

// receive reads an answer up to its body, skipping informational ones.
func (c *conn) receive(method string) (*response, error) {
	for {
		rs, err := c.receiveHead()
		if err != nil {
			return nil, err
		}
		c.used = true
		if rs.status >= 100 && rs.status < 200 && rs.status != 101 {
			continue
		}
		return rs, rs.setBody(c.r, method)
	}
}

func (c *conn) receiveHead() (*response, error) {
	line, err := c.line()
	if err != nil {
		return nil, err
	}
	proto, rest, _ := bytes.Cut(line, []byte(" "))
	code, _, _ := bytes.Cut(rest, []byte(" "))
	status, err := strconv.Atoi(string(code))
	if !bytes.HasPrefix(proto, []byte("HTTP/1.")) || err != nil || len(code) != 3 {
		return nil, fault.New(fault.Unavailable, "engine", "", "did not answer in HTTP/1.1").
			WithHint("is the address right, and is TLS on or off on both sides?")
	}
	rs := &response{status: status, header: make(header, 0, 12)}
	for range maxHeaderLines {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			return rs, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 {
			return nil, fault.New(fault.Unavailable, "engine", "", "sent a malformed header line %q", line)
		}
		rs.header = append(rs.header, struct{ name, value string }{
			strings.ToLower(string(name)), string(bytes.TrimSpace(value))})
	}
	return nil, fault.New(fault.Unavailable, "engine", "", "sent more than %d header lines", maxHeaderLines)
}

// line reads one line without its end. The slice is good until the next read.
func (c *conn) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := append([]byte(nil), line...)
		for err == bufio.ErrBufferFull && len(long) < maxHeaderLine {
			line, err = c.r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		return nil, broken(err)
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

func (rs *response) setBody(r *bufio.Reader, method string) error {
	length := rs.header.Get("content-length")
	switch {
	case rs.status == 101:
		rs.body = r
	case method == "HEAD" || rs.status == 204 || rs.status == 304:
		rs.body, rs.whole = eof{}, true
	case strings.EqualFold(rs.header.Get("transfer-encoding"), "chunked"):
		rs.body, rs.whole = &chunkedReader{r: r}, true
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return fault.New(fault.Unavailable, "engine", "", "sent a malformed length %q", length)
		}
		rs.body, rs.whole = &fixedReader{r: r, left: n}, true
	default:
		rs.body = r // until the connection ends
	}
	if strings.EqualFold(rs.header.Get("connection"), "close") {
		rs.whole = false
	}
	return nil
}

// watch aborts the connection's reads and writes when ctx ends; the returned
// function ends the watch.
func (c *conn) watch(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}
