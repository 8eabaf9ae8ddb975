package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/metadata"
)

// TestCVE_2024_3727: a digest that is a path, in any field of any document, is
// refused before anything is done with it.
func TestCVE_2024_3727(t *testing.T) {
	good := string(digest.FromString("x"))
	const manifest = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":1},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":1}],
		"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":1}}`
	const index = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":1}]}`
	const config = `{"os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`
	if _, err := ParseDocument(fmt.Appendf(nil, manifest, good, good, good), ""); err != nil {
		t.Fatal(err)
	}
	h := build(t, t.TempDir())
	for _, evil := range []string{
		"sha256:../../x", "sha256:../../../../etc/passwd", "../../x", "sha256:" + strings.Repeat("0", 63) + "/", "sha256:" + strings.Repeat("A", 64),
		"sha512:" + strings.Repeat("0", 128), "sha256:", "",
	} {
		for _, data := range []string{
			fmt.Sprintf(manifest, evil, good, good), fmt.Sprintf(manifest, good, evil, good), fmt.Sprintf(manifest, good, good, evil), fmt.Sprintf(index, evil),
		} {
			for name, parse := range map[string]func([]byte, string) (Document, error){"image": ParseDocument, "any": ParseAny} {
				if _, err := parse([]byte(data), ""); !fault.Is(err, fault.Invalid) {
					t.Errorf("%s: %v takes %s", name, err, data)
				}
			}
		}
		if _, err := ParseConfig(fmt.Appendf(nil, config, evil)); !fault.Is(err, fault.Invalid) {
			t.Errorf("config with %q: %v", evil, err)
		}
		if _, err := h.Document(context.Background(), digest.Digest(evil)); err == nil {
			t.Errorf("read %q", evil)
		}
	}
}

// TestCVE_2021_41190: what could be taken for a manifest and for an index is
// neither, whatever it says it is.
func TestCVE_2021_41190(t *testing.T) {
	const both = `{"schemaVersion":2,%s"config":{},"layers":[],"manifests":[]}`
	for _, says := range []string{"", ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, DockerIndex, DockerManifest} {
		for _, own := range []string{"", fmt.Sprintf("%q:%q,", "mediaType", ocispec.MediaTypeImageManifest), fmt.Sprintf("%q:%q,", "mediaType", ocispec.MediaTypeImageIndex)} {
			for name, parse := range map[string]func([]byte, string) (Document, error){"image": ParseDocument, "any": ParseAny} {
				if _, err := parse(fmt.Appendf(nil, both, own), says); !fault.Is(err, fault.Invalid) {
					t.Errorf("%s: %q as %q: %v", name, own, says, err)
				}
			}
		}
	}
}

// TestIndexesThatNameEachOtherOften: a few documents cannot make much work.
func TestIndexesThatNameEachOtherOften(t *testing.T) {
	o := new(layout)
	d := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayer, same, oneFile("a", "b"))
	for range maxNesting {
		many := make([]ocispec.Descriptor, 900)
		for i := range many {
			many[i] = d
		}
		d = o.index(many...)
	}
	h := build(t, t.TempDir())
	if _, err := h.load(o.finish(d)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	h.empty(t)
}

// TestRecordsOfEarlierVersions are on users' disks.
func TestRecordsOfEarlierVersions(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	l := oneFile("a", "1")
	id := h.mustLoad(t, dockerArchive([]string{"app:1"}, l).bytes())[0].ID
	old := fmt.Sprintf(`{"ID":%q,"Tags":["docker.io/library/app:1"],"Digests":["docker.io/library/app@%s"],"DiffIDs":[%q],"Size":1,
		"Created":"2020-01-02T03:04:05Z","LastTagged":"2021-01-02T03:04:05Z","OS":"linux","Arch":"amd64","Manifests":[%q],
		"Packed":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":7}]}`,
		id, digest.FromString("m"), digest.FromBytes(l), digest.FromString("m"), digest.FromString("p"))
	raw := metadata.NewBucket[json.RawMessage]("images")
	if err := h.db.Update(func(tx *metadata.Tx) error { return raw.Put(tx, string(id), json.RawMessage(old)) }); err != nil {
		t.Fatal(err)
	}
	h.close()
	h = build(t, h.root)
	img, err := h.Get(ctx, "app:1")
	if err != nil || img.ID != id || img.Size != 1 || img.LastTagged.Year() != 2021 || len(img.RepoDigests) != 1 || img.Index != "" {
		t.Fatalf("%+v, %v", img, err)
	}
	if err := h.Tag(ctx, "app:1", "app:2"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"app:1", "app:2"} {
		if _, err := h.Remove(ctx, ref, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.empty(t)
}

// TestDamagedRecordCanBeRemoved: until then nothing is collected, because it
// might be that record's.
func TestDamagedRecordCanBeRemoved(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	l := oneFile("a", "1")
	id := h.mustLoad(t, dockerArchive([]string{"app:1"}, l).bytes())[0].ID
	broken := metadata.NewBucket[string]("images")
	if err := h.db.Update(func(tx *metadata.Tx) error { return broken.Put(tx, string(id), "not a record") }); err != nil {
		t.Fatal(err)
	}
	h.close()
	h = build(t, h.root)
	if !h.lay.Has(digest.FromBytes(l)) {
		t.Error("its layer was collected")
	}
	if answer, err := h.Remove(ctx, id.Encoded(), RemoveOptions{}); describe(answer, err) != "Deleted "+string(id) {
		t.Error(describe(answer, err))
	}
	if err := h.sweep(); err != nil {
		t.Fatal(err)
	}
	h.empty(t)
}
