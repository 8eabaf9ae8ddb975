package layer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Apply unpacks r, a tar stream that may be compressed, as one layer. A diffID
// that is not "" must come out (else ErrDigest); when that layer is there
// already it is returned and r is not read. Whatever goes wrong, nothing is
// kept, the space is free again, and the error names the entry.
//
// The layer is complete and visible when Apply returns, and may be deleted by
// a garbage collection at once; Hold.Apply prevents that.
func (s *Store) Apply(ctx context.Context, diffID digest.Digest, r io.Reader) (Layer, error) {
	return s.apply(ctx, diffID, r, nil)
}

func (s *Store) apply(ctx context.Context, diffID digest.Digest, r io.Reader, hold *Hold) (Layer, error) {
	if diffID != "" {
		if err := checkDigest(diffID); err != nil {
			return Layer{}, err
		}
		if s.Has(diffID) {
			return s.Stat(diffID)
		}
	}
	tmp := filepath.Join(s.layers, ".tmp", s.unique())
	l, err := s.unpackInto(ctx, tmp, diffID, r)
	if err == nil {
		err = s.publish(tmp, l, hold)
	}
	if err != nil {
		if e := removeTree(tmp); e != nil {
			err = errors.Join(err, e)
		}
		return Layer{}, s.applyError(diffID, err)
	}
	return l, nil
}

// applyError says which layer an entry's error was in.
func (s *Store) applyError(diffID digest.Digest, err error) error {
	subject := diffID.String()
	var f *fault.Error
	hint := ""
	if errors.As(err, &f) {
		hint = f.Hint
	}
	kind := fault.KindOf(err)
	if isFull(err) {
		kind, hint = fault.Exhausted, fullHint
	}
	if hint != "" && f != nil && f.Hint == hint {
		hint = "" // it is in the text already
	}
	return &fault.Error{Kind: kind, Op: "unpack layer", Subject: subject, Err: err, Hint: hint}
}

// unpackInto makes tmp with everything that belongs to the layer.
func (s *Store) unpackInto(ctx context.Context, tmp string, diffID digest.Digest, r io.Reader) (Layer, error) {
	tree := filepath.Join(tmp, "tree")
	for _, dir := range []string{tmp, tree} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return Layer{}, err
		}
	}
	archive, err := NewReader(ctx, r, s.limits)
	if err != nil {
		return Layer{}, err
	}
	defer archive.Close()
	p := newPipe(archive)
	l, err := untar(ctx, tmp, p, s.limits)
	p.stop()
	if err != nil {
		return Layer{}, err
	}
	l.DiffID = digest.NewDigest(digest.SHA256, p.hash)
	if diffID != "" && l.DiffID != diffID {
		return Layer{}, fault.New(fault.Invalid, "verify layer", diffID.String(), "%w: the uncompressed bytes have digest %s", ErrDigest, l.DiffID)
	}
	return l, finishRecord(tmp, l)
}

// finishRecord writes down what is known about a layer, and drops the record of
// one that it is of no use for.
func finishRecord(tmp string, l Layer) error {
	if !l.Exact {
		if err := os.Remove(filepath.Join(tmp, recordName)); err != nil {
			return err
		}
		if err := removeTree(filepath.Join(tmp, lostName)); err != nil {
			return err
		}
	}
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tmp, "layer.json"), data, 0o600)
}

// publish gives an unpacked layer its name. Of two that unpack the same layer
// at once the first wins.
func (s *Store) publish(tmp string, l Layer, hold *Hold) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hold != nil {
		hold.add(l.DiffID)
	}
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.dir(l.DiffID), unix.RENAME_NOREPLACE)
	switch {
	case err == unix.EEXIST && s.known[l.DiffID] != nil:
		return s.discard(tmp)
	case err != nil:
		return fmt.Errorf("name layer: %w", err)
	}
	s.known[l.DiffID] = &entry{record: &l}
	return nil
}

// pipe decompresses and hashes in one goroutine while its reader unpacks in
// another.
type pipe struct {
	hash   hash.Hash
	chunks chan *chunk
	quit   chan struct{}
	done   sync.WaitGroup
	cur    *chunk
	rest   []byte
	err    error // set before chunks is closed
}

type chunk struct {
	n   int
	buf [256 << 10]byte
}

var chunkPool = sync.Pool{New: func() any { return new(chunk) }}

func newPipe(r io.Reader) *pipe {
	p := &pipe{hash: sha256.New(), chunks: make(chan *chunk, 2), quit: make(chan struct{})}
	p.done.Go(func() { p.produce(r) })
	return p
}

func (p *pipe) produce(r io.Reader) {
	defer close(p.chunks)
	for {
		c := chunkPool.Get().(*chunk)
		var err error
		c.n, err = readSome(r, c.buf[:])
		p.hash.Write(c.buf[:c.n])
		select {
		case p.chunks <- c:
		case <-p.quit:
			chunkPool.Put(c)
			return
		}
		if err != nil {
			p.err = err
			return
		}
	}
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
			chunkPool.Put(p.cur)
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

// stop ends the goroutine and waits for it: afterwards nobody reads the source.
func (p *pipe) stop() {
	close(p.quit)
	for c := range p.chunks {
		chunkPool.Put(c)
	}
	if p.cur != nil {
		chunkPool.Put(p.cur)
		p.cur, p.rest = nil, nil
	}
	p.done.Wait()
}
