package layer

import (
	"crypto/sha256"
	"hash"
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

// digester hashes what is written to it in a goroutine beside its writer, which
// takes about as long to read the files. A layer of one chunk needs none.
type digester struct {
	hash hash.Hash
	cur  *chunk
	full chan *chunk
	done sync.WaitGroup
}

func newDigester() *digester { return &digester{hash: sha256.New()} }

func (d *digester) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if d.cur == nil {
			d.cur = chunkPool.Get().(*chunk)
			d.cur.users.Store(1)
			d.cur.n = 0
		}
		n := copy(d.cur.buf[d.cur.n:], rest)
		d.cur.n += n
		rest = rest[n:]
		if d.cur.n == len(d.cur.buf) {
			d.pass()
		}
	}
	return len(b), nil
}

// pass gives the full chunk to the goroutine.
func (d *digester) pass() {
	if d.full == nil {
		d.full = make(chan *chunk, 2)
		d.done.Go(func() {
			for c := range d.full {
				d.hash.Write(c.buf[:c.n])
				c.release()
			}
		})
	}
	d.full <- d.cur
	d.cur = nil
}

// digest ends the goroutine and returns the digest of all that was written. It
// must be called once, also when nobody wants the digest any more.
func (d *digester) digest() digest.Digest {
	if d.full != nil {
		close(d.full)
		d.done.Wait()
	}
	if d.cur != nil {
		d.hash.Write(d.cur.buf[:d.cur.n])
		d.cur.release()
	}
	return digest.NewDigest(digest.SHA256, d.hash)
}
