package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

// unpack makes a layer of a file of the archive.
func (a *archive) unpack(ctx context.Context, p string, size int64, c layer.Compression, data io.Reader) error {
	hex, named := strings.CutPrefix(p, blobs)
	want := digest.NewDigestFromEncoded(digest.SHA256, hex)
	if named && c == layer.Plain && len(hex) == 64 && isHex(hex) {
		a.hold.Add(want)
		if l, err := a.store.layers.Stat(want); err == nil { // its name says which layer it is
			m := member{diffID: want, blob: want, size: size}
			if !l.Exact {
				m.kept, err = a.keepTar(ctx, want, size, data)
			}
			a.layers[p] = m
			return err
		}
	}
	m, err := a.apply(ctx, p, size, c, data)
	if err != nil {
		return err
	}
	if m.err == nil && named && m.blob != want {
		m.err = memberError(p, "%w: its bytes have digest %s", ErrDigest, m.blob)
	}
	a.layers[p] = m
	return nil
}

// keepTar keeps the tar of a layer that is here and could not be written again.
func (a *archive) keepTar(ctx context.Context, diffID digest.Digest, size int64, data io.Reader) (digest.Digest, error) {
	if b := a.store.source(a.keep, diffID); b != "" {
		return b, nil
	}
	if _, err := a.store.content.Ingest(ctx, data, diffID, size); err != nil {
		if errors.Is(err, content.ErrDigest) {
			return "", nil // not what its name says: nothing to keep
		}
		return "", err
	}
	return diffID, nil
}

// apply unpacks a layer. Whether its tree will be enough to write the tar again
// is known only at the end, so the bytes are spooled meanwhile. An error of the
// layer, which matters only if an image wants it, is in the member.
func (a *archive) apply(ctx context.Context, p string, size int64, c layer.Compression, data io.Reader) (member, error) {
	s := &spool{}
	if s.w, s.err = a.store.content.Writer("", -1); s.err == nil {
		defer s.w.Close()
	}
	data = io.TeeReader(data, s)
	var sum hash.Hash
	if c != layer.Plain {
		sum = sha256.New()
		data = io.TeeReader(data, sum)
	}
	id := short(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(p, blobs), "/layer.tar"), ".tar"))
	counted := &progressReader{r: data, id: id, total: size, progress: a.o.Progress}
	l, err := a.hold.Apply(ctx, "", counted)
	if err != nil {
		if counted.err != nil { // the archive itself, not the layer
			return member{}, counted.err
		}
		if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unsupported {
			return member{}, err
		}
		return member{err: err}, nil
	}
	counted.done()
	m := member{diffID: l.DiffID, blob: l.DiffID, size: size}
	if sum != nil {
		m.blob = digest.NewDigest(digest.SHA256, sum)
	}
	// The layer may have been here before, unpacked by another version.
	if l, err = a.store.layers.Stat(l.DiffID); err != nil || l.Exact {
		return m, err
	}
	if m.kept = a.store.source(a.keep, l.DiffID); m.kept == "" {
		m.kept, err = s.commit(a.keep)
	}
	return m, err
}

// spool writes a copy while it can: that there is no space for it matters only
// if it turns out to be needed, and what it took is free again at once.
type spool struct {
	w   *content.Writer
	err error
}

func (s *spool) Write(b []byte) (int, error) {
	if s.err == nil {
		if _, s.err = s.w.Write(b); s.err != nil {
			s.w.Close()
		}
	}
	return len(b), nil
}

func (s *spool) commit(hold *content.Hold) (digest.Digest, error) {
	if s.err != nil {
		return "", fault.Wrap("keep layer", "", s.err)
	}
	i, err := s.w.CommitTo(hold)
	return i.Digest, err
}

// progressReader reports how much of a layer was read. It remembers its
// source's error, which is one of the archive and not of the layer.
type progressReader struct {
	r        io.Reader
	id       string
	n, total int64
	shown    int64
	progress Progress
	err      error
}

const progressStep = 512 << 10 // bytes between two reports

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.n-p.shown >= progressStep {
		p.shown = p.n
		p.progress.Transfer(p.id, "Loading layer", p.n, p.total)
	}
	if err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}

func (p *progressReader) done() {
	p.progress.Transfer(p.id, "Loading layer", p.total, p.total)
}
