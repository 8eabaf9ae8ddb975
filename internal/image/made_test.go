package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

// withHistory is an image of two layers as docker's builder makes them.
func withHistory(tag string) []byte {
	base, top := oneFile("who", "base"), oneFile("what", "top!")
	c := config(base, top)
	c["history"] = []map[string]any{
		{"created": "2020-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:abc in / "},
		{"created": "2020-01-02T00:00:00Z", "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true},
		{"created": "2020-01-03T00:00:00Z", "created_by": "RUN make # buildkit", "comment": "buildkit.dockerfile.v0"},
	}
	b := new(tarball).file("1.tar", base).file("2.tar", top).json("c.json", c)
	return b.json("manifest.json", []map[string]any{{"Config": "c.json", "RepoTags": []string{tag}, "Layers": []string{"1.tar", "2.tar"}}}).bytes()
}

// steps writes a history down: id, text, size, comment, tags.
func (h *house) steps(t *testing.T, ref string) []string {
	t.Helper()
	items, err := h.History(context.Background(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range items {
		id := i.ID
		if strings.HasPrefix(id, "sha256:") {
			id = "ID"
		}
		out = append(out, fmt.Sprintf("%s|%s|%d|%s|%v", id, i.CreatedBy, i.Size, i.Comment, i.Tags))
	}
	return out
}

func TestHistory(t *testing.T) {
	h := build(t, t.TempDir())
	h.mustLoad(t, withHistory("app:1"))
	h.Tag(context.Background(), "app:1", "app:2")
	want := []string{
		"ID|RUN make # buildkit|4|buildkit.dockerfile.v0|[app:1 app:2]",
		"<missing>|/bin/sh -c #(nop)  CMD [\"sh\"]|0||[]",
		"<missing>|/bin/sh -c #(nop) ADD file:abc in / |4||[]",
	}
	if got := h.steps(t, "app:1"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	items, _ := h.History(context.Background(), "app:1", nil)
	if items[2].Created != time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		t.Errorf("created %d", items[2].Created)
	}
	if _, err := h.History(context.Background(), "nope", nil); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// commit makes an image of a layer.
func (h *house) commit(t testing.TB, data []byte, o CommitOptions) (*Image, error) {
	t.Helper()
	o.Hold = h.lay.Hold()
	defer h.Release(o.Hold)
	var err error
	if o.Layer, err = o.Hold.Apply(context.Background(), "", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return h.Commit(context.Background(), o)
}

func TestCommit(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	parent := h.mustLoad(t, withHistory("app:1"))[0].ID
	c := v1.DockerOCIImageConfig{}
	c.Cmd, c.Env, c.WorkingDir = []string{"sh", "-c", "make"}, []string{"A=1", "B=2"}, "/srv"
	c.Labels = map[string]string{"a": "b"}
	request := &v1.DockerOCIImageConfig{}
	request.Labels = map[string]string{"own": "1"}
	child, err := h.commit(t, oneFile("new", "more"), CommitOptions{Parent: parent, Container: c, Config: request, Author: "me", Comment: "done",
		Changes: []string{"ENV B=3", "USER 7", "EXPOSE 80"}, Ref: "app:2"})
	if err != nil {
		t.Fatal(err)
	}
	got := child.Config.Config
	if !slices.Equal(got.Env, []string{"B=3", "A=1"}) || got.User != "7" || got.WorkingDir != "/srv" || !slices.Equal(got.Cmd, c.Cmd) ||
		!reflect.DeepEqual(got.Labels, map[string]string{"a": "b", "own": "1"}) || child.Config.Author != "me" {
		t.Errorf("config %+v", got)
	}
	if child.Parent != parent || len(child.DiffIDs) != 3 || child.RepoTags[0] != "app:2" {
		t.Errorf("image %+v", child)
	}
	want := []string{
		"ID|sh -c make|4|done|[app:2]",
		"ID|RUN make # buildkit|4|buildkit.dockerfile.v0|[app:1]",
		"<missing>|/bin/sh -c #(nop)  CMD [\"sh\"]|0||[]",
		"<missing>|/bin/sh -c #(nop) ADD file:abc in / |4||[]",
	}
	if got := h.steps(t, "app:2"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	other1 := build(t, t.TempDir()) // parents come along
	other1.mustLoad(t, h.save(t, SaveOptions{}, "app:2", "app:1"))
	if got := other1.steps(t, "app:2"); !slices.Equal(got, want) {
		t.Errorf("loaded elsewhere: %q", got)
	}
	// Nothing changed: the parent's layers, and a step without one.
	empty, err := h.commit(t, new(tarball).bytes(), CommitOptions{Parent: child.ID, Container: c})
	if err != nil || len(empty.DiffIDs) != 3 || !empty.Dangling() {
		t.Fatalf("%+v, %v", empty, err)
	}
	if got := h.steps(t, string(empty.ID))[0]; got != "ID|sh -c make|0||[]" {
		t.Error(got)
	}
	// An entrypoint of the request's own: the container's command is not its.
	other, err := h.commit(t, oneFile("x", "y"), CommitOptions{Container: c, Changes: []string{`ENTRYPOINT ["/init"]`}})
	if err != nil || len(other.Config.Config.Cmd) != 0 || other.Parent != "" || len(other.DiffIDs) != 1 || other.OS != "linux" {
		t.Errorf("%+v, %v", other, err)
	}
	for _, o := range []CommitOptions{
		{Parent: digest.FromString("nothing")}, {Changes: []string{"RUN x"}}, {Ref: "UPPER"}, {Ref: "a@" + string(parent)},
	} {
		if _, err := h.commit(t, oneFile("z", "z"), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	h.noWaste(t)
	if answer, err := h.Remove(ctx, "app:1", RemoveOptions{}); describe(answer, err) != "Untagged app:1" {
		t.Errorf("a parent: %s", describe(answer, err))
	}
	h.Remove(ctx, string(other.ID), RemoveOptions{})
	h.Remove(ctx, "app:2", RemoveOptions{})
	answer, err := h.Remove(ctx, string(empty.ID), RemoveOptions{Prune: true})
	if err != nil || len(answer) != 3+3 { // three images, three layers
		t.Errorf("%s", describe(answer, err))
	}
	h.empty(t)
}

func TestLeases(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	fetch := func() (layer.Layer, digest.Digest) {
		l, err := h.lay.Apply(ctx, "", bytes.NewReader(oneFile("a", "1")))
		if err != nil {
			t.Fatal(err)
		}
		b, err := h.con.Ingest(ctx, strings.NewReader("packed"), "", -1)
		if err != nil {
			t.Fatal(err)
		}
		return l, b.Digest
	}
	there := func(want bool) {
		t.Helper()
		if err := h.sweep(); err != nil {
			t.Fatal(err)
		}
		l, b := digest.FromBytes(oneFile("a", "1")), digest.FromString("packed")
		if h.lay.Has(l) != want || h.con.Has(b) != want {
			t.Errorf("layer %v, blob %v, want %v", h.lay.Has(l), h.con.Has(b), want)
		}
	}
	l, b := fetch()
	if err := h.Lease(ctx, "pull", time.Hour, []digest.Digest{l.DiffID}, []digest.Digest{b}); err != nil {
		t.Fatal(err)
	}
	there(true)
	h.close()
	h = build(t, h.root)
	there(true)
	if err := h.DropLease(ctx, "pull"); err != nil {
		t.Fatal(err)
	}
	there(false)
	if err := h.DropLease(ctx, "pull"); err != nil {
		t.Error(err)
	}

	l, b = fetch()
	h.Lease(ctx, "old", -time.Second, []digest.Digest{l.DiffID}, []digest.Digest{b}) // over at once
	there(false)
	l, b = fetch()
	h.Lease(ctx, "two", time.Hour, []digest.Digest{l.DiffID}, []digest.Digest{b})
	h.Lease(ctx, "two", time.Hour, nil, nil) // replaced
	there(false)
	h.close()
	h = build(t, h.root)
	if _, old := h.leases.all["old"]; old || len(h.leases.all) != 1 {
		t.Errorf("leases %v", h.leases.all)
	}
}

func TestVerify(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	data, ids := several("app:v1")
	h.mustLoad(t, data)
	var seen []string
	look := func(v Verified) { seen = append(seen, v.Kind) }
	if err := h.Verify(ctx, "app:v1", look); err != nil {
		t.Fatal(err)
	}
	slices.Sort(seen)
	// An index, what belongs to it, three images, their own layers and the one they share.
	if got := strings.Join(seen, " "); got != "blob blob blob config config config index layer layer layer layer manifest manifest manifest" {
		t.Errorf("looked at %s", got)
	}
	if err := h.Verify(ctx, "", nil); err != nil {
		t.Error(err)
	}
	if err := h.Verify(ctx, "nope", nil); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := h.Verify(canceled, "app:v1", nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("canceled: %v", err)
	}

	evil := digest.FromBytes(oneFile("arch", "s390x"))
	tree, _ := h.lay.Tree(evil)
	os.WriteFile(filepath.Join(tree, "arch"), []byte("s390y"), 0o644)
	blob := filepath.Join(h.root, "content", "blobs", "sha256", ids[2].Encoded())
	os.WriteFile(blob, []byte("{}"), 0o600)
	err := h.Verify(ctx, "app:v1", nil)
	var damage *DamageError
	if !errors.As(err, &damage) || len(damage.Damaged) != 2 || damage.Looked != 14 || !errors.Is(err, layer.ErrDigest) || !errors.Is(err, content.ErrDigest) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"2 of 14", "layer " + string(evil), "arch", "config " + string(ids[2]), "pull"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestUsageAndTree(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	base := oneFile("base", strings.Repeat("b", 100))
	h.mustLoad(t, dockerArchive([]string{"app:1"}, base, oneFile("a", "1234567890")).bytes())
	h.mustLoad(t, dockerArchive([]string{"app:2"}, base, oneFile("a", "12345")).bytes())
	h.mustLoad(t, dockerArchive([]string{"base:1"}, base).bytes())
	h.mustLoad(t, dockerArchive([]string{"scratch:1"}).bytes())
	u, err := h.Usage(ctx)
	if err != nil || u.Layers != 115 || u.Blobs == 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	got := map[string]string{}
	for _, i := range u.Images {
		got[i.Image.RepoTags[0]] = fmt.Sprintf("%d %d %d", i.Size, i.Shared, i.Unique)
	}
	if want := map[string]string{"app:1": "110 100 10", "app:2": "105 100 5", "base:1": "100 100 0", "scratch:1": "0 0 0"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	tree, err := h.Tree(ctx)
	if err != nil || len(tree.Roots) != 1 || len(tree.Empty) != 1 {
		t.Fatalf("%+v, %v", tree, err)
	}
	root := tree.Roots[0]
	if root.DiffID != digest.FromBytes(base) || root.Images != 3 || root.Size != 100 || root.Tops[0].RepoTags[0] != "base:1" ||
		len(root.Above) != 2 || root.Above[0].Tops[0].RepoTags[0] != "app:1" || root.Above[1].Size != 5 || root.Above[0].Images != 1 {
		t.Errorf("%+v", root)
	}
	if text, err := json.Marshal(tree); err != nil || !strings.Contains(string(text), `"RepoTags":["app:1"]`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPushedIsRemembered(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	l := oneFile("a", "1")
	id := h.mustLoad(t, dockerArchive([]string{"app:1"}, l).bytes())[0].ID
	push := func(packed []byte) {
		t.Helper()
		hold := h.con.Hold()
		defer hold.Release()
		hold.Add(digest.FromBytes(packed))
		if _, err := h.con.Ingest(ctx, bytes.NewReader(packed), "", -1); err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(packed), Size: int64(len(packed))}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{d},
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: id, Size: 2}}
		m.SchemaVersion = 2
		canonical, _ := reference.WithDigest(mustNamed("app"), digest.FromBytes(mustJSON(m)))
		if err := h.Pushed(ctx, id, []ocispec.Descriptor{d}, mustJSON(m), canonical); err != nil {
			t.Fatal(err)
		}
		if raw, err := h.Manifest(ctx, id); err != nil || !bytes.Equal(raw, mustJSON(m)) {
			t.Errorf("%s, %v", raw, err)
		}
	}
	if _, err := h.Manifest(ctx, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("before: %v", err)
	}
	push(gz(l))
	h.close()
	h = build(t, h.root)
	if img, _ := h.Get(ctx, "app:1"); len(img.RepoDigests) != 1 || !h.con.Has(digest.FromBytes(gz(l))) {
		t.Errorf("%+v", img)
	}
	push(zst(l)) // packed anew: the old blob is of no use
	if h.con.Has(digest.FromBytes(gz(l))) {
		t.Error("the old blob is there still")
	}
	canonical, _ := reference.WithDigest(mustNamed("app"), id)
	if err := h.Pushed(ctx, digest.FromString("none"), nil, []byte("{}"), canonical); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	h.noWaste(t)
	h.Remove(ctx, string(id), RemoveOptions{})
	h.empty(t)
}

func TestArtifactsAreNamed(t *testing.T) {
	artifact := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example+type",
		"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},
		"layers":[{"mediaType":"text/x-sbom","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}`)
	if _, err := ParseDocument(artifact, ""); !errors.Is(err, ErrMediaType) || !strings.Contains(err.Error(), "application/vnd.example+type") {
		t.Errorf("got %v", err)
	}
	if doc, err := ParseAny(artifact, ""); err != nil || doc.ArtifactType() != "application/vnd.example+type" {
		t.Errorf("%+v, %v", doc, err)
	}
	bad := strings.Replace(string(artifact), `"layers"`, `"subject":{"digest":"sha256:../../x"},"layers"`, 1)
	if _, err := ParseAny([]byte(bad), ""); err == nil {
		t.Error("a subject with a path")
	}
}
