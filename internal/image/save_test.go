package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/layer"
)

func (h *house) save(t testing.TB, o SaveOptions, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := h.Save(context.Background(), refs, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// members reads an archive.
func membersOf(t testing.TB, data []byte) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 {
			t.Errorf("%s has time %v, owner %d", h.Name, h.ModTime, h.Uid)
		}
		names = append(names, h.Name)
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSaveIsBothFormsAndComesBack(t *testing.T) {
	base, top := oneFile("who", "base"), oneFile("what", "top")
	h := build(t, t.TempDir())
	ctx := context.Background()
	id := h.mustLoad(t, dockerArchive([]string{"app:v1", "registry.example:5000/team/app:v2"}, base, top).bytes())[0].ID
	other := h.mustLoad(t, dockerArchive(nil, base).bytes())[0].ID
	data := h.save(t, SaveOptions{}, "app:v1", "registry.example:5000/team/app:v2", string(other))
	if !bytes.Equal(data, h.save(t, SaveOptions{}, "app:v1", "registry.example:5000/team/app:v2", string(other))) {
		t.Error("the same images give other bytes")
	}
	names, files := membersOf(t, data)
	if !slices.IsSorted(names) {
		t.Errorf("entries %v", names)
	}
	for name, b := range files {
		if hex, ok := strings.CutPrefix(name, blobs); ok && hex != "" && digest.FromBytes(b).Encoded() != hex {
			t.Errorf("%s has other bytes", name)
		}
	}
	if !bytes.Equal(files[blobs+digest.FromBytes(base).Encoded()], base) {
		t.Error("the base layer is not what was loaded")
	}
	var manifests []dockerManifest
	if err := json.Unmarshal(files["manifest.json"], &manifests); err != nil || len(manifests) != 2 {
		t.Fatalf("%s, %v", files["manifest.json"], err)
	}
	if m := manifests[0]; m.Config != blobs+id.Encoded() || strings.Join(m.RepoTags, " ") != "app:v1 registry.example:5000/team/app:v2" || len(m.Layers) != 2 {
		t.Errorf("%+v", m)
	}
	if got := string(files["repositories"]); got != `{"app":{"v1":"`+digest.FromBytes(top).Encoded()+`"},"registry.example:5000/team/app":{"v2":"`+digest.FromBytes(top).Encoded()+`"}}` {
		t.Errorf("repositories: %s", got)
	}
	var index ocispec.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 3 {
		t.Fatalf("%s, %v", files["index.json"], err)
	}
	if a := index.Manifests[0].Annotations; a[containerdName] != "docker.io/library/app:v1" || a[ocispec.AnnotationRefName] != "v1" {
		t.Errorf("annotations %v", a)
	}

	// With one form taken away the other is enough.
	for _, drop := range []string{"", "manifest.json", "index.json"} {
		b := new(tarball)
		for _, n := range names {
			if n != drop && !strings.HasSuffix(n, "/") {
				b.file(n, files[n])
			}
		}
		h := build(t, t.TempDir())
		h.mustLoad(t, b.bytes())
		for _, ref := range []string{"app:v1", "registry.example:5000/team/app:v2", string(other)} {
			if _, err := h.Get(ctx, ref); err != nil {
				t.Errorf("without %q: %v", drop, err)
			}
		}
		if img, _ := h.Get(ctx, "app:v1"); img == nil || img.ID != id {
			t.Errorf("without %q: another image: %v", drop, img)
		}
		h.noWaste(t)
	}
}

func TestSaveNames(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	a := h.mustLoad(t, dockerArchive([]string{"app:1", "app:2"}, oneFile("a", "1")).bytes())[0].ID
	h.mustLoad(t, dockerArchive([]string{"app:3"}, oneFile("a", "2")).bytes())
	tags := func(refs ...string) string {
		_, files := membersOf(t, h.save(t, SaveOptions{}, refs...))
		var manifests []dockerManifest
		json.Unmarshal(files["manifest.json"], &manifests)
		var all []string
		for _, m := range manifests {
			all = append(all, "["+strings.Join(m.RepoTags, " ")+"]")
		}
		return strings.Join(all, "")
	}
	for want, refs := range map[string][]string{
		"[app:1 app:2][app:3]": {"app"},
		"[app:2]":              {"app:2"},
		"[]":                   {a.Encoded()[:12]},
		"[app:1]":              {string(a), "app:1", "app:1"},
		"[app:3][app:2]":       {"app:3", "docker.io/library/app:2"},
	} {
		if got := tags(refs...); got != want {
			t.Errorf("%v gives %s, want %s", refs, got, want)
		}
	}
	for _, refs := range [][]string{{"nope"}, {"app:9"}, {"app:1", "nope:1"}} {
		if err := h.Save(ctx, refs, io.Discard, SaveOptions{}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v: %v", refs, err)
		}
	}
	if err := h.Save(ctx, nil, io.Discard, SaveOptions{}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if err := h.Save(ctx, []string{"app"}, io.Discard, SaveOptions{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}}); !errors.Is(err, ErrPlatform) {
		t.Error(err)
	}
}

// TestInexactLayerIsSavedFromItsBlob: what the tree cannot give back comes from
// the bytes that were loaded, whichever image they came with.
func TestInexactLayerIsSavedFromItsBlob(t *testing.T) {
	ctx := context.Background()
	for name, pack := range map[string]func([]byte) []byte{"plain": same, "gzip": gz} {
		t.Run(name, func(t *testing.T) {
			h := build(t, t.TempDir())
			l := oneFile("a", "1")
			archive := func(tag string, more ...[]byte) []byte {
				b := new(tarball)
				all := append([][]byte{l}, more...)
				var names []string
				for i, x := range all {
					names = append(names, string(rune('a'+i))+".tar")
					b.file(names[i], pack(x))
				}
				return b.json("c.json", config(all...)).json("manifest.json",
					[]map[string]any{{"Config": "c.json", "RepoTags": []string{tag}, "Layers": names}}).bytes()
			}
			h.mustLoad(t, archive("app:0"))
			h.makeInexact(t, digest.FromBytes(l))
			if err := h.Save(ctx, []string{"app:0"}, io.Discard, SaveOptions{}); !fault.Is(err, fault.Unsupported) {
				t.Fatalf("a layer of which nothing is left to write it: %v", err)
			}
			h.mustLoad(t, archive("app:1"))
			h.mustLoad(t, archive("app:2", oneFile("b", "2")))
			h.noWaste(t)
			for _, ref := range []string{"app:0", "app:1"} {
				if _, err := h.Remove(ctx, ref, RemoveOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			h.noWaste(t)
			h.close()
			h = build(t, h.root)
			_, files := membersOf(t, h.save(t, SaveOptions{}, "app:2"))
			if !bytes.Equal(files[blobs+digest.FromBytes(l).Encoded()], l) {
				t.Error("other bytes")
			}
			if _, err := h.Remove(ctx, "app:2", RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			h.empty(t)
		})
	}
}

// TestPushKeepsTheOnlySource: what a registry has as another blob is here still
// as the one it came with.
func TestPushKeepsTheOnlySource(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	l := oneFile("a", "1")
	if err := h.pull("app:1", l); err != nil {
		t.Fatal(err)
	}
	h.makeInexact(t, digest.FromBytes(l))
	img, err := h.Get(ctx, "app:1")
	if err != nil {
		t.Fatal(err)
	}
	sent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromBytes(zst(l)), Size: int64(len(zst(l)))}
	name, _ := reference.WithDigest(mustNamed("app"), digest.FromString("{}"))
	if err := h.Pushed(ctx, img.ID, []ocispec.Descriptor{sent}, []byte("{}"), name); err != nil {
		t.Fatal(err)
	}
	if err := h.sweep(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := h.WriteLayer(ctx, digest.FromBytes(l), &b); err != nil || !bytes.Equal(b.Bytes(), l) {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
	h.Remove(ctx, "app:1", RemoveOptions{})
	h.empty(t)
}

// makeInexact makes a layer one that an older version unpacked.
func (h *house) makeInexact(t testing.TB, d digest.Digest) {
	t.Helper()
	l, err := h.lay.Stat(d)
	if err != nil {
		t.Fatal(err)
	}
	l.Exact = false
	h.close()
	if err := os.WriteFile(filepath.Join(h.root, "layers", d.Encoded(), "layer.json"), mustJSON(l), 0o600); err != nil {
		t.Fatal(err)
	}
	*h = *build(t, h.root)
}

func TestSaveNoticesDamage(t *testing.T) {
	h := build(t, t.TempDir())
	l := oneFile("a", "good")
	h.mustLoad(t, dockerArchive([]string{"app:1"}, l).bytes())
	tree, err := h.lay.Tree(digest.FromBytes(l))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(tree, "a"), []byte("evil"), 0o644)
	if err := h.Save(context.Background(), []string{"app:1"}, io.Discard, SaveOptions{}); !errors.Is(err, layer.ErrDigest) {
		t.Errorf("got %v", err)
	}
}

// TestPeersUnderstandUsAndWeThem goes through skopeo and podman and back.
func TestPeersUnderstandUsAndWeThem(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	h := build(t, t.TempDir())
	id := h.mustLoad(t, dockerArchive([]string{"app:v1"}, oneFile("who", "base"), oneFile("what", "top")).bytes())[0].ID
	dir := t.TempDir()
	ours := filepath.Join(dir, "ours.tar")
	if err := os.WriteFile(ours, h.save(t, SaveOptions{}, "app:v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.json")
	os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600)
	run, err := os.MkdirTemp("/tmp", "run") // podman wants it short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	storage := []string{"--root", filepath.Join(dir, "root"), "--runroot", run, "--storage-driver", "vfs"}
	podman := func(args ...string) []string { return append(append([]string{"podman"}, storage...), args...) }
	for _, tc := range []struct {
		name  string
		steps [][]string
		keeps bool // the config as it was
	}{
		{"skopeo, docker-archive", [][]string{{"skopeo", "copy", "--policy", policy, "docker-archive:" + ours, "docker-archive:" + dir + "/sd.tar:app:v1"}}, true},
		{"skopeo, oci-archive", [][]string{{"skopeo", "copy", "--policy", policy, "oci-archive:" + ours, "oci-archive:" + dir + "/so.tar:app:v1"}}, true},
		{"podman, docker-archive", [][]string{podman("load", "-i", ours), podman("save", "-o", dir+"/pd.tar", "app:v1")}, false},
		{"podman, oci-archive", [][]string{podman("save", "--format", "oci-archive", "-o", dir+"/po.tar", "app:v1")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := exec.LookPath(tc.steps[0][0]); err != nil {
				t.Skip(tc.steps[0][0], "is not installed")
			}
			for _, s := range tc.steps {
				if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", s, err, out)
				}
			}
			last := tc.steps[len(tc.steps)-1]
			file := last[len(last)-1]
			if i := slices.Index(last, "-o"); i >= 0 {
				file = last[i+1]
			}
			file = strings.TrimSuffix(file[strings.Index(file, "/"):], ":app:v1")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			h := build(t, t.TempDir())
			loaded := h.mustLoad(t, data)
			if tc.keeps && loaded[0].ID != id {
				t.Errorf("another image: %v", loaded)
			}
			if got := h.read(t, string(loaded[0].ID), "who") + h.read(t, string(loaded[0].ID), "what"); got != "basetop" {
				t.Errorf("the files say %q", got)
			}
			if len(loaded) != 1 || loaded[0].Ref == "" {
				t.Errorf("loaded %v", loaded)
			}
		})
	}
}
