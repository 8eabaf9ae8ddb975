// Package layer turns hostile tar streams into file trees that overlayfs can
// stack, and gives each container its writable layer. It exists so that the
// rules about what an archive may do to a host are in one place.
package layer

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Layer describes one unpacked layer.
type Layer struct {
	DiffID digest.Digest // digest of the uncompressed tar
	Size   int64         // sum of the file sizes, bytes
}

// Limits bounds what one layer may cost. Zero fields take the defaults.
type Limits struct {
	MaxBytes   int64 // uncompressed bytes of one layer
	MaxEntries int64 // tar entries of one layer
	MaxRatio   int64 // uncompressed : compressed, looked at above RatioFloor
	RatioFloor int64 // uncompressed bytes below which the ratio is not looked at
}

// Store holds layers under root/layers and writable layers under
// root/containers. It is safe for concurrent use.
type Store struct{}

// Open opens the store below root (the engine's data root).
func Open(root string, limits Limits) (*Store, error) { return &Store{}, nil }

// Close waits for removals in the background.
func (s *Store) Close() error { return nil }

// Apply unpacks r (tar, plain or gzip, zstd, bzip2) as one layer. A diffID that
// is not "" must come out, else nothing is kept.
func (s *Store) Apply(ctx context.Context, diffID digest.Digest, r io.Reader) (Layer, error) {
	return Layer{}, nil
}

// Lower returns the directories of an image's layers for overlayfs, top first.
// diffIDs are base first, as in config.rootfs. An image without layers gets one
// empty directory.
func (s *Store) Lower(diffIDs []digest.Digest) ([]string, error) { return nil, nil }

// Writable makes root/containers/<id>/{upper,work} for a container over the
// given layers (base first). As long as it exists the layers stay, even when
// their image is removed. Calling it again returns the same directories.
func (s *Store) Writable(containerID string, diffIDs []digest.Digest) (upper, work string, err error) {
	return "", "", nil
}

// RemoveWritable removes root/containers/<id> with everything in it (log files
// included); a missing one is no error.
func (s *Store) RemoveWritable(containerID string) error { return nil }

// Writables lists the container ids that have a writable layer.
func (s *Store) Writables() []string { return nil }

// WritableSize returns the bytes of files in the container's writable layer.
func (s *Store) WritableSize(containerID string) (int64, error) { return 0, nil }
