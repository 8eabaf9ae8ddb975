package transfer

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

const (
	// packLevel is the effort of packing.
	packLevel = 5
	// packBlock is how much is packed at once, in bytes. Every block but the
	// first knows the end of the one before it, so little is lost by packing
	// several at the same time.
	packBlock = 1 << 20
	// packWindow is how far back deflate can refer, in bytes.
	packWindow = 32 << 10
)

// gzipWriter packs with all processors. The same bytes always give the same
// result with one version of the library, however many processors there are and
// however they are written: a layer has the same digest wherever and whenever
// it is pushed.
type gzipWriter struct {
	w      io.Writer
	jobs   chan *packJob // in order
	done   chan struct{} // closed when all jobs are written
	cur    *packJob
	window []byte // end of the block before
	crc    uint32
	size   uint32 // modulo 2^32, as the format wants it

	mu  sync.Mutex // guards err
	err error      // of the first write that failed
}

// packJob is a block on its way.
type packJob struct {
	in, window []byte
	out        bytes.Buffer
	last       bool
	ready      chan struct{}
	err        error
}

var (
	packJobs  = sync.Pool{New: func() any { return &packJob{in: make([]byte, 0, packBlock)} }}
	deflaters sync.Pool
)

func newGzipWriter(w io.Writer) *gzipWriter {
	z := &gzipWriter{w: w, jobs: make(chan *packJob, runtime.GOMAXPROCS(0)), done: make(chan struct{})}
	go z.drain()
	return z
}

// Write packs p, or returns the error with which an earlier write failed.
func (z *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(n)
	for len(p) > 0 {
		if z.cur == nil {
			z.cur = packJobs.Get().(*packJob)
		}
		k := min(len(p), packBlock-len(z.cur.in))
		z.cur.in = append(z.cur.in, p[:k]...)
		if p = p[k:]; len(z.cur.in) == packBlock {
			z.submit(false)
		}
	}
	return n, z.failed()
}

// submit has the current block packed; it waits while enough are.
func (z *gzipWriter) submit(last bool) {
	j := z.cur
	if j == nil {
		j = packJobs.Get().(*packJob)
	}
	z.cur = nil
	j.window, j.last, j.ready, j.err = z.window, last, make(chan struct{}), nil
	z.window = append([]byte(nil), j.in[max(0, len(j.in)-packWindow):]...)
	z.jobs <- j
	go j.run()
}

func (j *packJob) run() {
	defer close(j.ready)
	j.out.Reset()
	d, _ := deflaters.Get().(*flate.Writer)
	if d == nil {
		d, j.err = flate.NewWriterDict(&j.out, packLevel, j.window)
	} else {
		d.ResetDict(&j.out, j.window)
	}
	if j.err == nil {
		_, j.err = d.Write(j.in)
	}
	switch {
	case j.err != nil:
		return
	case j.last:
		j.err = d.Close()
	default:
		j.err = d.Flush()
	}
	deflaters.Put(d)
}

// drain writes the blocks in their order.
func (z *gzipWriter) drain() {
	defer close(z.done)
	z.put([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}) // no name, no time, no system
	for j := range z.jobs {
		<-j.ready
		z.fail(j.err)
		z.put(j.out.Bytes())
		j.in = j.in[:0]
		packJobs.Put(j)
	}
}

// put writes unless something has failed.
func (z *gzipWriter) put(b []byte) {
	if z.failed() == nil {
		_, err := z.w.Write(b)
		z.fail(err)
	}
}

func (z *gzipWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

func (z *gzipWriter) fail(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err == nil {
		z.err = err
	}
}

// Close ends the stream. It must be called in any case.
func (z *gzipWriter) Close() error {
	z.submit(true)
	close(z.jobs)
	<-z.done
	end := binary.LittleEndian.AppendUint32(nil, z.crc)
	z.put(binary.LittleEndian.AppendUint32(end, z.size))
	return z.failed()
}
