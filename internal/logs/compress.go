package logs

import (
	"compress/gzip"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// compressor compresses the rotated files of one log, beside everything else.
// A file under compression keeps its name and stays what it is until the
// compressed one is complete and has taken the name; only then it goes. Whatever
// instant that is cut off at, readers find the one or the other, and know them
// by their identity when they find both.
type compressor struct {
	path  string
	files int

	names sync.Mutex // held while files change names

	mu      sync.Mutex // guards the following
	running bool
	again   bool
	stopped atomic.Bool
	done    sync.WaitGroup
}

// compressing lets one log at a time be compressed: a compressor takes a
// megabyte of memory, and nobody waits for the result.
var compressing = make(chan struct{}, 1)

// wake looks for files to compress, now or once those in work are done.
func (c *compressor) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = true
	if c.running || c.stopped.Load() {
		return
	}
	c.running = true
	c.done.Go(c.run)
}

// stop ends the work, leaving undone what is not finished.
func (c *compressor) stop() {
	c.mu.Lock()
	c.stopped.Store(true)
	c.mu.Unlock()
	c.done.Wait()
}

func (c *compressor) run() {
	for {
		c.mu.Lock()
		if !c.again || c.stopped.Load() {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
		compressing <- struct{}{}
		for !c.stopped.Load() && c.next() {
		}
		<-compressing
	}
}

// next compresses the oldest file that is not compressed yet. It returns false
// when there is none, or when it failed: a file that stays as it is does no harm.
func (c *compressor) next() bool {
	c.names.Lock()
	i := 0
	for n := 1; n < c.files && present(c.path, n); n++ {
		if exists(rotated(c.path, n)) {
			i = n
		}
	}
	var file *os.File
	if i > 0 {
		name := rotated(c.path, i)
		if file, _ = os.Open(name); file != nil && c.redundant(file, name+compressedSuffix) {
			_ = unix.Unlink(name) // all but this was done when a predecessor ended
		}
	}
	c.names.Unlock()
	if file == nil {
		return false
	}
	defer file.Close()
	if !exists(rotated(c.path, i)) && exists(rotated(c.path, i)+compressedSuffix) {
		return true
	}
	return c.compress(file)
}

// redundant reports whether zipped is the compressed form of file.
func (c *compressor) redundant(file *os.File, zipped string) bool {
	z, err := os.Open(zipped)
	if err != nil {
		return false
	}
	defer z.Close()
	return idOfCompressed(z) == idOfFile(file)
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

func (c *compressor) compress(file *os.File) bool {
	temporary := c.path + temporarySuffix
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return false
	}
	defer out.Close()
	id := idOfFile(file)
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(out)
	z.Extra = id.field()
	_, err = io.CopyBuffer(z, &stoppable{file, c}, make([]byte, 64<<10))
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = out.Sync() // the original goes: a power cut must not leave less
	}
	if err != nil || !c.replace(id, temporary) {
		_ = unix.Unlink(temporary)
		return err == nil
	}
	return true
}

// replace puts the compressed form of a file in its place, wherever that is now.
func (c *compressor) replace(id FileID, zipped string) bool {
	c.names.Lock()
	defer c.names.Unlock()
	for i := 1; i < c.files; i++ {
		name := rotated(c.path, i)
		if idOfPath(name) != id {
			continue
		}
		if unix.Rename(zipped, name+compressedSuffix) != nil {
			return false
		}
		if unix.Unlink(name) == unix.ENOENT { // the log was removed at this moment
			_ = unix.Unlink(name + compressedSuffix)
		}
		return true
	}
	return false
}

// stoppable is a file that cannot be read any more once the work has to end.
type stoppable struct {
	file *os.File
	c    *compressor
}

func (s *stoppable) Read(p []byte) (int, error) {
	if s.c.stopped.Load() {
		return 0, os.ErrClosed
	}
	return s.file.Read(p)
}
