package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

// Errors of archives that a caller can tell apart with errors.Is.
var (
	ErrArchive   = errors.New("malformed image archive")
	ErrTraversal = errors.New("leads out of the archive")
	ErrDuplicate = errors.New("the archive has this entry twice")
	ErrMissing   = errors.New("the archive has no such entry")
	ErrCycle     = errors.New("leads back to itself")
)

// Limits on what is kept in memory of an archive.
const (
	maxDocuments = 64 << 20 // bytes of all JSON documents of an archive
	maxMembers   = 200_000  // entries of an archive
	sniffSize    = 512      // bytes by which an entry is recognised, one tar block
)

// blobs is the directory of an OCI layout in which names are digests.
const blobs = "blobs/sha256/"

// archive is what was found in an image archive. Its entries come in any
// order: what a file is for is known only when the manifest is there, which is
// often the last one. So layers are recognised by their first bytes and
// unpacked as they pass, JSON documents are kept, and nothing is stored twice.
type archive struct {
	store *Store
	hold  *layer.Hold
	keep  *content.Hold
	o     LoadOptions

	documents map[string][]byte // by cleaned path
	docBytes  int64
	layers    map[string]member
	links     map[string]string // path of a link -> path it leads to
	other     map[string]bool   // entries that are neither
	members   int
}

// member is an entry that is a layer.
type member struct {
	diffID digest.Digest
	blob   digest.Digest // of the bytes in the archive; "" when nobody can ask
	kept   digest.Digest // the blob that must be kept, because the tree is not enough to write the tar again; or ""
	size   int64         // bytes in the archive
	err    error         // why it could not be unpacked; matters if an image wants it
}

func newArchive(s *Store, hold *layer.Hold, keep *content.Hold, o LoadOptions) *archive {
	return &archive{
		store: s, hold: hold, keep: keep, o: o,
		documents: map[string][]byte{}, layers: map[string]member{}, links: map[string]string{}, other: map[string]bool{},
	}
}

// read takes in a whole archive, plain or compressed.
func (a *archive) read(ctx context.Context, r io.Reader) error {
	stream, err := layer.NewReader(ctx, r, a.store.layers.Limits())
	if err != nil {
		return err
	}
	defer stream.Close()
	tr := tar.NewReader(stream)
	last := ""
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return readError(last, err)
		}
		if a.members++; a.members > maxMembers {
			return memberError(h.Name, "%w: more than %d entries", ErrTooLarge, maxMembers)
		}
		if err := a.entry(ctx, h, tr); err != nil {
			return readError(h.Name, err)
		}
		last = h.Name
	}
	// The rest must be readable too: a cut or damaged end may have taken away
	// entries, and only the compression's checksum would tell.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return readError(last, err)
	}
	return nil
}

// readError classifies what reading the archive returned.
func readError(at string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) || fault.KindOf(err) == fault.Canceled {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return memberError(at, "%w: it ends early, here", layer.ErrCorrupt)
	}
	return memberError(at, "%w: %w", layer.ErrCorrupt, err)
}

// memberError names an entry of the archive.
func memberError(name, format string, args ...any) error {
	return fault.New(fault.Invalid, "read archive entry", fmt.Sprintf("%.200q", name), format, args...)
}

// cleanMember turns an entry's name into the form by which manifests refer to
// it. Absolute names and ones that climb are refused.
func cleanMember(name string) (string, error) {
	p := path.Clean(name)
	if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
		return "", memberError(name, "%w", ErrTraversal)
	}
	return p, nil
}

func (a *archive) entry(ctx context.Context, h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := cleanMember(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := a.once(p); err != nil {
			return err
		}
		return a.file(ctx, p, h.Size, data)
	case tar.TypeSymlink:
		return a.link(p, path.Join(path.Dir(p), h.Linkname), h)
	case tar.TypeLink:
		return a.link(p, path.Clean(h.Linkname), h)
	}
	return memberError(h.Name, "%w: an entry of type %q has no place in it", ErrArchive, string(h.Typeflag))
}

// once refuses a path that came before: which of the two a reader takes would
// be a matter of taste.
func (a *archive) once(p string) error {
	_, doc := a.documents[p]
	_, lay := a.layers[p]
	_, link := a.links[p]
	if doc || lay || link || a.other[p] {
		return memberError(p, "%w", ErrDuplicate)
	}
	return nil
}

// link records a link; it is followed only inside the archive, by name, when
// something refers to it.
func (a *archive) link(p, target string, h *tar.Header) error {
	if err := a.once(p); err != nil {
		return err
	}
	if path.IsAbs(h.Linkname) || target == ".." || strings.HasPrefix(target, "../") {
		return memberError(h.Name, "link to %.200q %w", h.Linkname, ErrTraversal)
	}
	a.links[p] = target
	return nil
}

// follow returns the path that p leads to.
func (a *archive) follow(p string) (string, error) {
	for range 40 {
		next, ok := a.links[p]
		if !ok {
			return p, nil
		}
		p = next
	}
	return "", memberError(p, "%w", ErrCycle)
}

// file takes in one regular file.
func (a *archive) file(ctx context.Context, p string, size int64, data io.Reader) error {
	head := make([]byte, min(size, sniffSize))
	if _, err := io.ReadFull(data, head); err != nil {
		return err
	}
	whole := io.MultiReader(bytes.NewReader(head), data)
	compression, err := layer.Detect(head)
	switch {
	case err != nil:
		a.layers[p] = member{err: err}
	case compression != layer.Plain || looksLikeTar(head):
		return a.unpack(ctx, p, size, compression, whole)
	case looksLikeJSON(head):
		return a.document(p, size, whole)
	default:
		a.other[p] = true
	}
	return nil
}

// looksLikeTar reports whether a block can be a tar's first: a header, or the
// zeros of an empty archive.
func looksLikeTar(block []byte) bool {
	if len(block) < sniffSize {
		return false
	}
	if bytes.Equal(block[257:262], []byte("ustar")) || len(bytes.TrimRight(block, "\x00")) == 0 {
		return true
	}
	// Old archives have only the checksum.
	sum := int64(8 * ' ')
	for i, c := range block {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	var stated int64
	for _, c := range bytes.Trim(block[148:156], " \x00") {
		if c < '0' || c > '7' {
			return false
		}
		stated = stated<<3 | int64(c-'0')
	}
	return sum == stated
}

func looksLikeJSON(head []byte) bool {
	t := bytes.TrimLeft(head, " \t\r\n")
	return len(t) > 0 && (t[0] == '{' || t[0] == '[')
}

// document keeps a JSON file. One that is too large to be a manifest or a
// config is none, and is missed only if something refers to it.
func (a *archive) document(p string, size int64, data io.Reader) error {
	if size > MaxConfig {
		a.other[p] = true
		return nil
	}
	if a.docBytes += size; a.docBytes > maxDocuments {
		return memberError(p, "%w: more than %d bytes of documents", ErrTooLarge, maxDocuments)
	}
	doc := make([]byte, size)
	if _, err := io.ReadFull(data, doc); err != nil {
		return err
	}
	a.documents[p] = doc
	if hex, ok := strings.CutPrefix(p, blobs); ok {
		if got := digest.FromBytes(doc); got.Encoded() != hex {
			return memberError(p, "%w: its bytes have digest %s", ErrDigest, got)
		}
	}
	return nil
}

// layer returns the layer that p leads to.
func (a *archive) layer(p string) (member, error) {
	to, err := a.follow(p)
	if err != nil {
		return member{}, err
	}
	m, ok := a.layers[to]
	switch {
	case ok && m.err != nil:
		return member{}, fault.Wrap("load layer", fmt.Sprintf("%.200q", p), m.err)
	case ok:
		return m, nil
	case a.other[to] || a.documents[to] != nil:
		return member{}, memberError(p, "%w: it is no tar archive", layer.ErrCorrupt)
	}
	return member{}, memberError(p, "%w", ErrMissing)
}

// document returns the JSON document that p leads to.
func (a *archive) doc(p string) ([]byte, error) {
	to, err := a.follow(p)
	if err != nil {
		return nil, err
	}
	if doc, ok := a.documents[to]; ok {
		return doc, nil
	}
	if _, isLayer := a.layers[to]; isLayer || a.other[to] {
		return nil, memberError(p, "%w: it is no JSON document", ErrArchive)
	}
	return nil, memberError(p, "%w", ErrMissing)
}
