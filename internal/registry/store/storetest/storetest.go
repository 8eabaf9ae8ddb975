// Package storetest is the conformance suite of registry storages. It exists so
// that another implementation is held to what the first one promises.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/registry/store"
)

// Opener opens the storage of one test; reopen closes it and opens it again, as
// a restart of the process would.
type Opener func(t *testing.T) (s store.Storage, reopen func() store.Storage)

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, Opener){
		"blobs": testBlobs, "uploads": testUploads, "wrong bytes": testWrongBytes, "mounts": testMounts,
		"manifests": testManifests, "missing references": testMissing, "referrers": testReferrers, "lists": testLists,
		"restarts": testRestarts, "notes": testNotes, "sweeping": testSweep, "sweeping beside pushes": testSweepBesidePushes,
		"other digests": testSHA512, "at once": testAtOnce,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, open) })
	}
}

var ctx = context.Background()

func put(t *testing.T, s store.Storage, repo, text string) store.Blob {
	t.Helper()
	b, err := s.PutBlob(ctx, repo, strings.NewReader(text), digest.FromString(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, s store.Storage, repo string, d digest.Digest) string {
	t.Helper()
	f, b, err := s.OpenBlob(ctx, repo, d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil || int64(len(data)) != b.Size {
		t.Fatalf("%d of %d bytes: %v", len(data), b.Size, err)
	}
	return string(data)
}

func missing(t *testing.T, what string, err error) {
	t.Helper()
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("%s: %v, want not found", what, err)
	}
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// manifest makes a document that refers to blobs.
func manifest(text string, blobs ...store.Blob) (store.Manifest, []byte) {
	raw := []byte(`{"schemaVersion":2,"text":"` + text + `"}`)
	return store.Manifest{Digest: digest.FromBytes(raw), MediaType: "application/vnd.oci.image.manifest.v1+json", Size: int64(len(raw)), Blobs: blobs}, raw
}

func testBlobs(t *testing.T, open Opener) {
	s, _ := open(t)
	b := put(t, s, "a/b", "hello")
	if got := read(t, s, "a/b", b.Digest); got != "hello" {
		t.Errorf("read %q", got)
	}
	if got, err := s.Blob(ctx, "a/b", b.Digest); err != nil || got.Size != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := s.Blob(ctx, "a", b.Digest)
	missing(t, "in another repository", err)
	_, _, err = s.OpenBlob(ctx, "a/b/c", b.Digest)
	missing(t, "in a deeper repository", err)
	put(t, s, "other", "hello")
	ok(t, "delete", s.DeleteBlob(ctx, "a/b", b.Digest))
	missing(t, "delete twice", s.DeleteBlob(ctx, "a/b", b.Digest))
	if got := read(t, s, "other", b.Digest); got != "hello" {
		t.Errorf("deleting it in one repository took it from another: %q", got)
	}
	empty := put(t, s, "a/b", "")
	if got := read(t, s, "a/b", empty.Digest); got != "" {
		t.Errorf("the empty blob reads %q", got)
	}
}

func testUploads(t *testing.T, open Opener) {
	s, reopen := open(t)
	u, err := s.Upload(ctx, "key-1")
	ok(t, "begin", err)
	io.WriteString(u, "hel")
	if _, err := s.Upload(ctx, "key-1"); !fault.Is(err, fault.Conflict) {
		t.Errorf("opened twice: %v", err)
	}
	r := u.Reader()
	io.WriteString(u, "lo")
	p := make([]byte, 3)
	if n, err := r.ReadAt(p, 0); n != 3 || err != nil && err != io.EOF || string(p) != "hel" {
		t.Errorf("read beside writing: %q, %v", p[:n], err)
	}
	ok(t, "close", u.Close())
	s = reopen()
	u, err = s.Upload(ctx, "key-1")
	ok(t, "resume", err)
	if u.Size() != 5 {
		t.Fatalf("%d bytes survived, want 5", u.Size())
	}
	d := digest.FromString("hello, world")
	missing(t, "before the end", statOf(s, "r", d))
	io.WriteString(u, ", world")
	b, err := u.Commit(ctx, "r", d)
	if err != nil || b.Size != 12 || read(t, s, "r", d) != "hello, world" {
		t.Errorf("%+v, %v", b, err)
	}
	u, err = s.Upload(ctx, "key-2")
	ok(t, "begin", err)
	io.WriteString(u, "dropped")
	ok(t, "discard", u.Discard())
	u, err = s.Upload(ctx, "key-2")
	ok(t, "begin anew", err)
	defer u.Close()
	if u.Size() != 0 {
		t.Errorf("a discarded upload has %d bytes", u.Size())
	}
}

func statOf(s store.Storage, repo string, d digest.Digest) error {
	_, err := s.Blob(ctx, repo, d)
	return err
}

func testWrongBytes(t *testing.T, open Opener) {
	s, _ := open(t)
	good := put(t, s, "r", "good")
	for _, d := range []digest.Digest{good.Digest, digest.SHA512.FromString("good")} {
		if _, err := s.PutBlob(ctx, "r", strings.NewReader("evil"), d, 4); !errors.Is(err, content.ErrDigest) {
			t.Errorf("%s: %v", d.Algorithm(), err)
		}
		u, err := s.Upload(ctx, "k-"+d.Algorithm().String())
		ok(t, "begin", err)
		io.WriteString(u, "evil")
		if _, err := u.Commit(ctx, "r", d); !errors.Is(err, content.ErrDigest) {
			t.Errorf("%s: %v", d.Algorithm(), err)
		}
		if u.Size() != 4 {
			t.Errorf("a failed commit changed the upload: %d bytes", u.Size())
		}
		ok(t, "discard", u.Discard())
	}
	if got := read(t, s, "r", good.Digest); got != "good" {
		t.Errorf("the good blob became %q", got)
	}
	for _, n := range []int64{3, 5} {
		if _, err := s.PutBlob(ctx, "r", strings.NewReader("evil"), digest.FromString("evil"), n); !errors.Is(err, content.ErrSize) {
			t.Errorf("announced with %d bytes: %v", n, err)
		}
	}
	missing(t, "a refused blob", statOf(s, "r", digest.FromString("evil")))
}

func testMounts(t *testing.T, open Opener) {
	s, _ := open(t)
	b := put(t, s, "from", "shared")
	_, err := s.Mount(ctx, "to", "nowhere", b.Digest)
	missing(t, "from a repository without it", err)
	got, err := s.Mount(ctx, "to", "from", b.Digest)
	if err != nil || got.Size != b.Size {
		t.Fatalf("%+v, %v", got, err)
	}
	var holders []string
	ok(t, "holders", s.Holders(ctx, b.Digest, func(repo string) bool { holders = append(holders, repo); return true }))
	slices.Sort(holders)
	if !slices.Equal(holders, []string{"from", "to"}) {
		t.Errorf("held by %v", holders)
	}
	ok(t, "delete", s.DeleteBlob(ctx, "from", b.Digest))
	if read(t, s, "to", b.Digest) != "shared" {
		t.Error("the mounted blob went with its origin")
	}
}

func testManifests(t *testing.T, open Opener) {
	s, _ := open(t)
	layer := put(t, s, "r", "layer")
	m, raw := manifest("one", layer)
	ok(t, "put", s.PutManifest(ctx, "r", m, raw, []string{"latest", "v1"}, false))
	tag, err := s.Tag(ctx, "r", "latest")
	if err != nil || tag.Digest != m.Digest || tag.Pushed.IsZero() {
		t.Errorf("%+v, %v", tag, err)
	}
	got, info, err := s.ReadManifest(ctx, "r", m.Digest)
	if err != nil || !bytes.Equal(got, raw) || info.MediaType != m.MediaType || info.Size != int64(len(raw)) {
		t.Errorf("%s %+v %v", got, info, err)
	}
	_, _, err = s.ReadManifest(ctx, "q", m.Digest)
	missing(t, "in another repository", err)
	_, err = s.Blob(ctx, "r", m.Digest)
	missing(t, "a manifest as a blob", err)
	m2, raw2 := manifest("two", layer)
	ok(t, "put", s.PutManifest(ctx, "r", m2, raw2, []string{"latest"}, false))
	if tag, _ := s.Tag(ctx, "r", "latest"); tag.Digest != m2.Digest {
		t.Errorf("the tag did not move: %+v", tag)
	}
	ok(t, "untag", s.DeleteTag(ctx, "r", "v1"))
	missing(t, "untag twice", s.DeleteTag(ctx, "r", "v1"))
	if _, err := s.Manifest(ctx, "r", m.Digest); err != nil {
		t.Errorf("deleting a tag deleted the manifest: %v", err)
	}
	ok(t, "delete", s.DeleteManifest(ctx, "r", m2.Digest))
	_, err = s.Tag(ctx, "r", "latest")
	missing(t, "the tag of a deleted manifest", err)
	missing(t, "delete twice", s.DeleteManifest(ctx, "r", m2.Digest))
}

func testMissing(t *testing.T, open Opener) {
	s, _ := open(t)
	there := put(t, s, "r", "there")
	elsewhere := put(t, s, "q", "elsewhere")
	wrong := store.Blob{Digest: there.Digest, Size: 99}
	index, rawIndex := manifest("index")
	index.Manifests = []digest.Digest{digest.FromString("member")}
	foreign, rawForeign := manifest("foreign", there, elsewhere)
	sized, rawSized := manifest("sized", wrong)
	for name, c := range map[string]struct {
		m   store.Manifest
		raw []byte
		is  func(*store.MissingError) bool
	}{
		"blob of another repository": {foreign, rawForeign, func(e *store.MissingError) bool { return slices.Equal(e.Blobs, []digest.Digest{elsewhere.Digest}) }},
		"wrong size":                 {sized, rawSized, func(e *store.MissingError) bool { return len(e.Sizes) == 1 }},
		"member":                     {index, rawIndex, func(e *store.MissingError) bool { return len(e.Manifests) == 1 }},
	} {
		err := s.PutManifest(ctx, "r", c.m, c.raw, []string{"t"}, false)
		var e *store.MissingError
		if !errors.As(err, &e) || !c.is(e) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = s.Tag(ctx, "r", "t")
		missing(t, name+": the tag", err)
	}
	ok(t, "sparse", s.PutManifest(ctx, "r", index, rawIndex, []string{"t"}, true))
}

func testReferrers(t *testing.T, open Opener) {
	s, _ := open(t)
	subject := digest.FromString("nobody has it")
	var want []digest.Digest
	for i := range 5 {
		m, raw := manifest(fmt.Sprint("about", i))
		m.Subject, m.ArtifactType, m.Annotations = subject, "x/y", map[string]string{"n": fmt.Sprint(i)}
		ok(t, "put", s.PutManifest(ctx, "r", m, raw, nil, false))
		want = append(want, m.Digest)
	}
	slices.Sort(want)
	list := func(after digest.Digest, n int) (got []digest.Digest) {
		ok(t, "referrers", s.Referrers(ctx, "r", subject, after, func(m store.Manifest) bool {
			if m.ArtifactType != "x/y" || m.Annotations["n"] == "" {
				t.Errorf("%+v", m)
			}
			got = append(got, m.Digest)
			return len(got) < n
		}))
		return got
	}
	if got := list("", 9); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := list(want[1], 2); !slices.Equal(got, want[2:4]) {
		t.Errorf("a page: %v", got)
	}
	ok(t, "delete", s.DeleteManifest(ctx, "r", want[0]))
	if got := list("", 9); !slices.Equal(got, want[1:]) {
		t.Errorf("after a delete: %v", got)
	}
	ok(t, "elsewhere", s.Referrers(ctx, "q", subject, "", func(store.Manifest) bool { t.Error("seen in another repository"); return true }))
}

func testLists(t *testing.T, open Opener) {
	s, _ := open(t)
	m, raw := manifest("m")
	names := []string{"a", "a-b", "a/b", "a/c", "b"}
	for _, repo := range names {
		ok(t, "put", s.PutManifest(ctx, repo, m, raw, []string{"B", "a", "b", "_"}, false))
	}
	repos := func(after string, n int) (got []string) {
		ok(t, "list", s.Repositories(ctx, after, func(name string) bool { got = append(got, name); return len(got) < n }))
		return got
	}
	if got := repos("", 9); !slices.Equal(got, names) {
		t.Errorf("%v", got)
	}
	if got := repos("a-b", 2); !slices.Equal(got, names[2:4]) {
		t.Errorf("%v", got)
	}
	tags := func(after string, n int) (got []string) {
		ok(t, "list", s.Tags(ctx, "a", after, func(tag store.Tag) bool { got = append(got, tag.Name); return len(got) < n }))
		return got
	}
	if got := tags("", 9); !slices.Equal(got, []string{"B", "_", "a", "b"}) {
		t.Errorf("%v", got)
	}
	if got := tags("_", 1); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%v", got)
	}
	missing(t, "tags of nothing", s.Tags(ctx, "c", "", func(store.Tag) bool { return true }))
	one, two := put(t, s, "blobs", "1"), put(t, s, "blobs", "2")
	want := []digest.Digest{one.Digest, two.Digest}
	slices.Sort(want)
	var got []digest.Digest
	ok(t, "blobs", s.Blobs(ctx, "blobs", "", func(b store.Blob) bool {
		if b.Linked.IsZero() || b.Size != 1 {
			t.Errorf("%+v", b)
		}
		got = append(got, b.Digest)
		return true
	}))
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	ok(t, "delete", s.DeleteManifest(ctx, "b", m.Digest))
	if got := repos("", 99); slices.Contains(got, "b") {
		t.Errorf("an empty repository is listed: %v", got)
	}
}

func testRestarts(t *testing.T, open Opener) {
	s, reopen := open(t)
	b := put(t, s, "r", "kept")
	m, raw := manifest("kept", b)
	ok(t, "put", s.PutManifest(ctx, "r", m, raw, []string{"t"}, false))
	loose := put(t, s, "r", "loose")
	s = reopen()
	if read(t, s, "r", b.Digest) != "kept" || read(t, s, "r", loose.Digest) != "loose" {
		t.Error("blobs did not survive")
	}
	if tag, err := s.Tag(ctx, "r", "t"); err != nil || tag.Digest != m.Digest {
		t.Errorf("%+v, %v", tag, err)
	}
	if got, _, err := s.ReadManifest(ctx, "r", m.Digest); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%s, %v", got, err)
	}
}

func testNotes(t *testing.T, open Opener) {
	s, reopen := open(t)
	if v, err := s.Note(ctx, "k"); v != nil || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	ok(t, "set", s.SetNotes(ctx, map[string][]byte{"k": {0, 255}, "l": []byte("x")}))
	ok(t, "delete", s.SetNotes(ctx, map[string][]byte{"l": nil}))
	s = reopen()
	if v, err := s.Note(ctx, "k"); !bytes.Equal(v, []byte{0, 255}) || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if v, _ := s.Note(ctx, "l"); v != nil {
		t.Errorf("a deleted note is %q", v)
	}
}

func testSHA512(t *testing.T, open Opener) {
	s, reopen := open(t)
	d := digest.SHA512.FromString("long")
	_, err := s.PutBlob(ctx, "r", strings.NewReader("long"), d, -1)
	ok(t, "put", err)
	put(t, s, "r", "long")
	_, err = s.Mount(ctx, "q", "r", d)
	ok(t, "mount", err)
	m, raw := manifest("long", store.Blob{Digest: d, Size: 4})
	m.Digest = digest.SHA512.FromBytes(raw)
	ok(t, "manifest", s.PutManifest(ctx, "r", m, raw, []string{"t"}, false))
	s = reopen()
	ok(t, "delete by the other digest", s.DeleteBlob(ctx, "r", digest.FromString("long")))
	if read(t, s, "r", d) != "long" || read(t, s, "q", d) != "long" {
		t.Error("cannot be read")
	}
	if got, _, err := s.ReadManifest(ctx, "r", m.Digest); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%s, %v", got, err)
	}
	ok(t, "delete", s.DeleteManifest(ctx, "r", m.Digest))
	ok(t, "delete", s.DeleteBlob(ctx, "r", d))
	missing(t, "after deletion", statOf(s, "r", d))
	if read(t, s, "q", d) != "long" {
		t.Error("went from another repository")
	}
}

func testAtOnce(t *testing.T, open Opener) {
	s, _ := open(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			repo := fmt.Sprintf("r%d", i%4)
			for j := range 8 {
				text := fmt.Sprint("blob", j)
				b, err := s.PutBlob(ctx, repo, strings.NewReader(text), digest.FromString(text), int64(len(text)))
				if err != nil {
					t.Error(err)
					return
				}
				m, raw := manifest(text, b)
				if err := s.PutManifest(ctx, repo, m, raw, []string{fmt.Sprint("t", j)}, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		for j := range 8 {
			if _, err := s.Tag(ctx, fmt.Sprintf("r%d", i), fmt.Sprint("t", j)); err != nil {
				t.Error(err)
			}
		}
	}
}
