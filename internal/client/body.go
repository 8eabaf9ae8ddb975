package client

import (
	"bufio"
	"bytes"
	"io"
	"strconv"

	"berth/internal/fault"
)

// eof is an empty body.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// fixedReader reads a body of known length; a connection that ends before is
// broken, not finished.
type fixedReader struct {
	r    *bufio.Reader
	left int64
}

func (f *fixedReader) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.r.Read(p)
	f.left -= int64(n)
	if err != nil && f.left > 0 {
		return n, broken(err)
	}
	return n, nil
}

// chunkedReader reads a chunked body.
type chunkedReader struct {
	r    *bufio.Reader
	left int64 // of the chunk
	open bool  // inside a chunk, whose end mark is still to come
	done bool
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.done {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if err != nil {
		return n, broken(err)
	}
	return n, nil
}

// next reads up to the data of the next chunk, or to the end of the body.
func (c *chunkedReader) next() error {
	if c.open {
		if end, err := c.line(); err != nil || len(end) != 0 {
			return c.malformed(err)
		}
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64)
	if err != nil || n < 0 {
		return c.malformed(nil)
	}
	c.left, c.open = n, true
	if n > 0 {
		return nil
	}
	for range maxHeaderLines { // trailer
		line, err := c.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			c.done = true
			return nil
		}
	}
	return c.malformed(nil)
}

func (c *chunkedReader) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return nil, c.malformed(nil)
	}
	if err != nil {
		return nil, broken(err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (c *chunkedReader) malformed(err error) error {
	if err != nil {
		return err
	}
	return fault.New(fault.Unavailable, "engine", "", "sent a malformed chunk")
}
