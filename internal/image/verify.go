package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
)

// Verified is one object that Verify looked at.
type Verified struct {
	Kind    string // "index", "config", "manifest", "blob" or "layer"
	Digest  digest.Digest
	Size    int64  // bytes read, as far as known
	Skipped string // why it cannot be compared with its digest, else ""
	Err     error  // what is wrong with it
}

// DamageError says which objects of an image are not what their digests say.
type DamageError struct {
	Damaged []Verified
	Looked  int // objects in all
}

// Error names every damaged object.
func (e *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d objects are damaged", len(e.Damaged), e.Looked)
	for i, v := range e.Damaged {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s %s: %v", sep, v.Kind, v.Digest, v.Err)
	}
	return b.String()
}

// Unwrap returns what is wrong with each.
func (e *DamageError) Unwrap() []error {
	var all []error
	for _, v := range e.Damaged {
		all = append(all, v.Err)
	}
	return all
}

// Verify reads everything that an image, or with an index all its images, or
// with ref "" all that there are, consists of, and compares it with its
// digests. report, which may be nil, hears of each object; it is called from
// one goroutine. The error at the end is a *DamageError in a fault.Internal, or
// what kept Verify from looking.
func (s *Store) Verify(ctx context.Context, ref string, report func(Verified)) error {
	const op = "verify image"
	recs, err := s.toVerify(ref)
	if err != nil {
		return err
	}
	v := &verification{s: s, report: report, seen: map[digest.Digest]bool{}}
	for _, rec := range recs {
		if err := v.record(ctx, rec); err != nil {
			return fault.Wrap(op, ref, err)
		}
	}
	if len(v.damage.Damaged) == 0 {
		return nil
	}
	return &fault.Error{Kind: fault.Internal, Op: op, Subject: ref, Err: &v.damage,
		Hint: "the disk or another program changed files; remove the image and pull, load or build it again"}
}

// toVerify returns the records that a reference means.
func (s *Store) toVerify(ref string) ([]*record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var recs []*record
	if ref == "" {
		for _, id := range slices.Sorted(maps.Keys(s.images)) {
			recs = append(recs, s.images[id].rec)
		}
		return recs, nil
	}
	id, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	recs = append(recs, s.images[id].rec)
	for _, m := range recs[0].Members {
		if st := s.images[m.Image]; st != nil {
			recs = append(recs, st.rec)
		}
	}
	return recs, nil
}

type verification struct {
	s      *Store
	report func(Verified)
	seen   map[digest.Digest]bool // blobs and layers; no digest is of both unless they are the same bytes
	damage DamageError
}

// record looks at what one record names, held meanwhile.
func (v *verification) record(ctx context.Context, rec *record) error {
	hold, blobs := v.s.layers.Hold(), v.s.content.Hold()
	defer v.s.Release(hold)
	defer func() { v.s.collectBlobs(blobs.Release()) }()
	hold.Add(rec.DiffIDs...)
	blobs.Add(rec.blobs()...)

	kind := "config"
	if rec.isIndex() {
		kind = "index"
	}
	if err := v.blob(ctx, kind, rec.ID, true); err != nil {
		return err
	}
	for _, d := range rec.Manifests {
		if err := v.blob(ctx, "manifest", d, true); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Values(rec.Kept)) {
		if err := v.blob(ctx, "blob", d, true); err != nil {
			return err
		}
	}
	for _, d := range rec.Blobs {
		if err := v.blob(ctx, "blob", d, true); err != nil {
			return err
		}
	}
	for _, d := range rec.Packed {
		if err := v.blob(ctx, "blob", d.Digest, false); err != nil {
			return err
		}
	}
	for _, d := range rec.DiffIDs {
		if err := v.layer(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) note(o Verified) {
	v.damage.Looked++
	if o.Err != nil {
		v.damage.Damaged = append(v.damage.Damaged, o)
	}
	if v.report != nil {
		v.report(o)
	}
}

// blob verifies a blob; one that may be missing is passed over then.
func (v *verification) blob(ctx context.Context, kind string, d digest.Digest, must bool) error {
	key := "blob " + d
	if v.seen[key] || !must && !v.s.content.Has(d) {
		return nil
	}
	v.seen[key] = true
	o := Verified{Kind: kind, Digest: d}
	o.Size, o.Err = v.read(ctx, d)
	if err := ctx.Err(); err != nil {
		return err
	}
	v.note(o)
	return nil
}

// read reads a blob and compares it with its digest.
func (v *verification) read(ctx context.Context, d digest.Digest) (int64, error) {
	f, err := v.s.content.Open(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return f.Read(p)
	}))
	if err != nil {
		return n, fault.Wrap("read blob", d.String(), err)
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != d {
		return n, fault.New(fault.Internal, "read blob", d.String(), "the stored bytes have digest %s: %w", got, content.ErrDigest)
	}
	return n, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (v *verification) layer(ctx context.Context, d digest.Digest) error {
	key := "layer " + d
	if v.seen[key] {
		return nil
	}
	v.seen[key] = true
	o := Verified{Kind: "layer", Digest: d}
	l, err := v.s.layers.Stat(d)
	o.Size, o.Err = l.Size, err
	if err == nil {
		o.Err = v.s.layers.Verify(ctx, d)
	}
	if fault.Is(o.Err, fault.Unsupported) {
		o.Skipped, o.Err = o.Err.Error(), nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.note(o)
	return nil
}
