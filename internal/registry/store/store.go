// Package store says what a registry wants from its storage. It exists so that
// the protocol (package registry) and the place where bytes live are two things:
// package local keeps them in a directory or in an engine's own stores, and an
// object store can be added as another package. Package storetest holds what
// every implementation must do.
package store

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Blob is a blob that a repository links.
type Blob struct {
	Digest digest.Digest
	Size   int64     // bytes
	Linked time.Time `json:",omitzero"` // set by Blobs
}

// Tag is a name for a manifest in one repository.
type Tag struct {
	Name   string
	Digest digest.Digest
	Pushed time.Time
}

// Manifest is what is kept about a manifest beside its bytes.
type Manifest struct {
	Digest       digest.Digest
	MediaType    string
	Size         int64             // bytes of the document
	Content      int64             // bytes of configuration and layers, as the document states them
	ArtifactType string            `json:",omitempty"` // as the referrers API shows it
	Subject      digest.Digest     `json:",omitempty"`
	Annotations  map[string]string `json:",omitempty"` // of manifests with a subject only
	Blobs        []Blob            `json:",omitempty"` // configuration and layers that must be in the repository
	Foreign      []digest.Digest   `json:",omitempty"` // layers that may be missing
	Manifests    []digest.Digest   `json:",omitempty"` // the members of an index
	Pushed       time.Time
}

// MissingError says what a manifest refers to and its repository does not have.
type MissingError struct {
	Blobs     []digest.Digest
	Manifests []digest.Digest
	Sizes     []digest.Digest // there, with another size than the manifest says
}

// Error names everything that is missing.
func (e *MissingError) Error() string {
	var parts []string
	for _, p := range []struct {
		what string
		ds   []digest.Digest
	}{{"unknown blob", e.Blobs}, {"unknown manifest", e.Manifests}, {"another size than stated:", e.Sizes}} {
		for _, d := range p.ds {
			parts = append(parts, p.what+" "+d.String())
		}
	}
	return strings.Join(parts, ", ")
}

// Upload is a blob that arrives in pieces, possibly over several lives of the
// process. It is used by one goroutine at a time.
type Upload interface {
	// Size is how many bytes are there and survive a kill of the process.
	Size() int64
	// Write appends.
	io.Writer
	// Reader reads what is there now, also beside later writes, until the upload
	// is closed.
	Reader() io.ReaderAt
	// Commit verifies that the bytes have the digest d and links the blob into
	// repo; it is visible then and survives everything. content.ErrDigest, and
	// nothing is visible, if they have another. After success the upload is
	// closed, after an error it is as before.
	Commit(ctx context.Context, repo string, d digest.Digest) (Blob, error)
	// Close keeps it for later.
	Close() error
	// Discard drops it.
	Discard() error
}

// SweepOptions say what a garbage collection takes.
type SweepOptions struct {
	// Grace is how long something must have been of no use before it goes. A
	// push takes its time between the first blob and the tag.
	Grace time.Duration
	// Untagged also takes manifests that no tag leads to: not itself tagged, nor
	// in a tagged index, nor a referrer of one that stays.
	Untagged bool
	// Uploads is the age at which an unfinished upload that nobody adds to goes;
	// 0 leaves them.
	Uploads time.Duration
	// DryRun counts and deletes nothing.
	DryRun bool
	// Touched reports whether somebody was told lately that the thing exists.
	Touched func(repo string, d digest.Digest) bool
}

// Swept is what a garbage collection took.
type Swept struct {
	Repositories int   // looked at
	Manifests    int   // deleted
	Blobs        int   // unlinked from a repository
	Freed        int64 // bytes on disk; in a dry run what the blobs sum up to at most
}

// Storage keeps repositories. Names of repositories, tags and digests were
// checked by the caller. What is not there is fault.NotFound. It is safe for
// concurrent use, and an acknowledged change survives a kill at any instant.
type Storage interface {
	// Repositories calls fn for the names after after, in byte order, until fn
	// returns false. fn must not call the storage.
	Repositories(ctx context.Context, after string, fn func(name string) bool) error
	// Tags does the same for the tags of a repository; it is fault.NotFound if
	// there is no such repository.
	Tags(ctx context.Context, repo, after string, fn func(Tag) bool) error
	// Tag looks one up.
	Tag(ctx context.Context, repo, name string) (Tag, error)
	// DeleteTag deletes it and leaves the manifest.
	DeleteTag(ctx context.Context, repo, name string) error

	// Manifest returns what is known about a manifest.
	Manifest(ctx context.Context, repo string, d digest.Digest) (Manifest, error)
	// ReadManifest returns the document, verified anew.
	ReadManifest(ctx context.Context, repo string, d digest.Digest) ([]byte, Manifest, error)
	// PutManifest stores a document (whose digest the caller checked) and lets
	// tags name it, in one step. Unless sparse is set, a *MissingError names what
	// the repository does not have of m.Blobs and m.Manifests.
	PutManifest(ctx context.Context, repo string, m Manifest, raw []byte, tags []string, sparse bool) error
	// DeleteManifest deletes it and the tags that name it.
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error
	// Referrers calls fn for the manifests whose subject is subject, in the order
	// of their digests, those after after, until fn returns false.
	Referrers(ctx context.Context, repo string, subject, after digest.Digest, fn func(Manifest) bool) error

	// Blob finds a blob that the repository links.
	Blob(ctx context.Context, repo string, d digest.Digest) (Blob, error)
	// Blobs calls fn for the blobs that the repository links, in the order of
	// their digests, those after after, until fn returns false.
	Blobs(ctx context.Context, repo string, after digest.Digest, fn func(Blob) bool) error
	// OpenBlob opens it. A reader that is an *os.File can be sent without copying.
	OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, Blob, error)
	// PutBlob stores r as one whole blob, verifies it and links it. A size below
	// zero is not known. Errors are those of Upload.Commit, and content.ErrSize.
	PutBlob(ctx context.Context, repo string, r io.Reader, d digest.Digest, size int64) (Blob, error)
	// Mount links a blob of the repository from.
	Mount(ctx context.Context, repo, from string, d digest.Digest) (Blob, error)
	// Holders calls fn for the repositories that link the blob until fn returns
	// false. fn must not call the storage.
	Holders(ctx context.Context, d digest.Digest, fn func(repo string) bool) error
	// DeleteBlob unlinks it.
	DeleteBlob(ctx context.Context, repo string, d digest.Digest) error

	// Upload opens an unfinished upload, or begins it. key was made by the caller
	// and is safe as a file's name. While it is open others get fault.Conflict.
	Upload(ctx context.Context, key string) (Upload, error)

	// Note returns a small value of the registry's own, nil if there is none, and
	// SetNotes changes several at once (nil deletes).
	Note(ctx context.Context, key string) ([]byte, error)
	SetNotes(ctx context.Context, notes map[string][]byte) error

	// Sweep collects garbage, beside everything else.
	Sweep(ctx context.Context, o SweepOptions) (Swept, error)
	// Close writes down what must be and ends.
	Close() error
}

// Linker is offered by a storage that shares the blobs of an engine: what is
// there already is linked by its digest, and nothing is copied.
type Linker interface {
	LinkBlobs(ctx context.Context, repo string, blobs []Blob) error
	// ReadContent returns a document of the engine's store.
	ReadContent(ctx context.Context, d digest.Digest, limit int64) ([]byte, error)
}

// String says in words what a collection took.
func (s Swept) String() string {
	return fmt.Sprintf("%d manifests and %d blobs in %d repositories, %d bytes", s.Manifests, s.Blobs, s.Repositories, s.Freed)
}
