package layer

import (
	"crypto/sha256"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// pipe decompresses in one goroutine and hashes in another while its reader
// unpacks in a third: each takes about as long as the others.
type pipe struct {
	chunks chan *chunk // to Read
	hashed chan *chunk // to the hash
	quit   chan struct{}
	done   sync.WaitGroup
	cur    *chunk
	rest   []byte
	err    error         // set before chunks is closed
	sum    digest.Digest // set before done is
}

// chunk is a piece of the stream that both its reader and the hash need.
type chunk struct {
	users atomic.Int32
	n     int
	buf   [256 << 10]byte
}

var chunkPool = sync.Pool{New: func() any { return new(chunk) }}

func (c *chunk) release() {
	if c.users.Add(-1) == 0 {
		chunkPool.Put(c)
	}
}

func newPipe(r io.Reader) *pipe {
	p := &pipe{chunks: make(chan *chunk, 2), hashed: make(chan *chunk, 2), quit: make(chan struct{})}
	p.done.Go(func() { p.produce(r) })
	p.done.Go(p.hash)
	return p
}

func (p *pipe) produce(r io.Reader) {
	defer close(p.chunks)
	defer close(p.hashed)
	for {
		c := chunkPool.Get().(*chunk)
		c.users.Store(2)
		var err error
		c.n, err = readSome(r, c.buf[:])
		p.hashed <- c // never for long: hash does nothing else than take them
		select {
		case p.chunks <- c:
		case <-p.quit:
			c.release()
			return
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

func (p *pipe) hash() {
	h := sha256.New()
	for c := range p.hashed {
		h.Write(c.buf[:c.n])
		c.release()
	}
	p.sum = digest.NewDigest(digest.SHA256, h)
}

// readSome fills buf as far as r goes.
func readSome(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// Read returns decompressed bytes.
func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.cur != nil {
			p.cur.release()
			p.cur = nil
		}
		c, ok := <-p.chunks
		if !ok {
			return 0, p.err
		}
		p.cur, p.rest = c, c.buf[:c.n]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// stop ends the goroutines and waits for them: afterwards nobody reads the
// source.
func (p *pipe) stop() {
	close(p.quit)
	for c := range p.chunks {
		c.release()
	}
	if p.cur != nil {
		p.cur.release()
		p.cur, p.rest = nil, nil
	}
	p.done.Wait()
}

// digest returns the digest of everything that came out, after stop.
func (p *pipe) digest() digest.Digest { return p.sum }
