package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	l.DiffID = p.digest()
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
