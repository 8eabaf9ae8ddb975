package transfer

import (
	"io"
	"sync"
)

// ahead reads from a source in a goroutine of its own, so that the network and
// the digest of what is packed keep one processor busy while another unpacks.
// It holds a bounded number of chunks, however large the blob is.
type ahead struct {
	chunks chan *chunk
	quit   chan struct{}
	done   sync.WaitGroup
	once   sync.Once
	cur    *chunk
	rest   []byte
	err    error // set before chunks is closed
}

const (
	chunkSize   = 128 << 10 // bytes
	chunksAhead = 6
)

type chunk struct {
	n   int
	buf [chunkSize]byte
}

var chunkPool = sync.Pool{New: func() any { return new(chunk) }}

// readAhead starts reading r. Nobody else may read it until stop has returned.
func readAhead(r io.Reader) *ahead {
	a := &ahead{chunks: make(chan *chunk, chunksAhead), quit: make(chan struct{})}
	a.done.Go(func() { a.run(r) })
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.chunks)
	for a.err == nil {
		c := chunkPool.Get().(*chunk)
		c.n = 0
		for c.n < len(c.buf) && a.err == nil {
			var n int
			n, a.err = r.Read(c.buf[c.n:])
			c.n += n
		}
		select {
		case a.chunks <- c:
		case <-a.quit:
			chunkPool.Put(c)
			return
		}
	}
}

// Read returns what was read ahead, then the source's error.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		a.putBack()
		c, ok := <-a.chunks
		if !ok {
			return 0, a.err
		}
		a.cur, a.rest = c, c.buf[:c.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) putBack() {
	if a.cur != nil {
		chunkPool.Put(a.cur)
		a.cur, a.rest = nil, nil
	}
}

// stop ends the goroutine and waits for it. Who stops it early must see to it
// that a Read of the source under way comes back.
func (a *ahead) stop() {
	a.once.Do(func() { close(a.quit) })
	for c := range a.chunks {
		chunkPool.Put(c)
	}
	a.putBack()
	a.done.Wait()
}
