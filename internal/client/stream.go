package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"

	"berth/internal/fault"
)

// Stream is a connection that a request turned into a raw one: what a container
// writes comes out, what is written goes to its standard input.
type Stream struct {
	conn    net.Conn
	r       *bufio.Reader
	unwatch func() bool
	media   string
}

// Read reads what the container wrote; without a terminal it is framed, see
// Demultiplex.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// Write sends standard input.
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends standard input and keeps the output open.
func (s *Stream) CloseWrite() error {
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close drops the connection.
func (s *Stream) Close() error {
	s.unwatch()
	return s.conn.Close()
}

// Pending is a stream that was asked for and not yet granted.
type Pending struct{ x *exchange }

// Stream waits until the engine grants the stream.
func (p *Pending) Stream() (*Stream, error) {
	a, err := p.x.finish()
	if err != nil {
		return nil, err
	}
	if a.status != 101 && a.status != 200 {
		p.x.abandon()
		return nil, fault.New(fault.Unavailable, "engine", "", "answered a request for a stream with status %d", a.status)
	}
	return &Stream{conn: p.x.conn.Conn, r: p.x.conn.r, unwatch: p.x.unwatch, media: a.header.Get("content-type")}, nil
}

// Abandon drops a stream that is no longer wanted.
func (p *Pending) Abandon() { p.x.abandon() }

func (c *Client) beginStream(ctx context.Context, rq *request) (*Pending, error) {
	rq.upgrade = true
	x, err := c.begin(ctx, rq)
	if err != nil {
		return nil, err
	}
	return &Pending{x}, nil
}

// multiplexed reports whether a body of this media type is framed; known is
// false for engines too old to say.
func multiplexed(media string) (framed, known bool) {
	switch {
	case strings.HasPrefix(media, "application/vnd.docker.multiplexed-stream"):
		return true, true
	case strings.HasPrefix(media, "application/vnd.docker.raw-stream"):
		return false, true
	}
	return false, false
}

// Frame streams of the multiplexed form.
const (
	frameStdin  = 0
	frameStdout = 1
	frameStderr = 2
	frameError  = 3
)

// maxFrameError bounds the text of a frame in which the engine reports why it
// ended the stream.
const maxFrameError = 64 << 10

// Demultiplex copies a framed stream to stdout and stderr until it ends. Data
// is passed on as it comes, without waiting for the end of its frame.
func Demultiplex(stdout, stderr io.Writer, r io.Reader) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return broken(err)
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var w io.Writer
		switch head[0] {
		case frameStdin, frameStdout:
			w = stdout
		case frameStderr:
			w = stderr
		case frameError:
			text, _ := io.ReadAll(io.LimitReader(r, min(size, maxFrameError)))
			return fault.New(fault.Internal, "engine", "", "%s", strings.TrimSpace(string(text)))
		default:
			return fault.New(fault.Unavailable, "engine", "", "sent a frame of the unknown stream %d", head[0])
		}
		if err := copyFrame(w, r, size, buf); err != nil {
			return err
		}
	}
}

func copyFrame(w io.Writer, r io.Reader, size int64, buf []byte) error {
	for size > 0 {
		n, err := r.Read(buf[:min(size, int64(len(buf)))])
		if n > 0 {
			size -= int64(n)
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err != nil && size > 0 {
			return broken(err)
		}
	}
	return nil
}
