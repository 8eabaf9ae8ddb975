package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/metadata"
)

func TestNames(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	a := h.mustLoad(t, dockerArchive([]string{"app:v1", "registry.example:5000/team/app:v1"}, oneFile("a", "1")).bytes())[0].ID
	b := h.mustLoad(t, dockerArchive(nil, oneFile("a", "2")).bytes())[0].ID
	for ref, want := range map[string]digest.Digest{
		"app:v1": a, "docker.io/library/app:v1": a, "library/app:v1": a, "registry.example:5000/team/app:v1": a,
		string(a): a, a.Encoded(): a, a.Encoded()[:12]: a, "sha256:" + a.Encoded()[:7]: a, b.Encoded()[:12]: b,
	} {
		img, err := h.Get(ctx, ref)
		if err != nil || img.ID != want {
			t.Errorf("%s is %v, %v", ref, img, err)
		}
	}
	for ref, says := range map[string]string{
		"app":                             "No such image: app:latest",
		"app:v2":                          "No such image: app:v2",
		"docker.io/library/nope":          "No such image: nope:latest",
		"sha256:" + b.Encoded()[:10] + "": "",
		"sha256:0000000000000000":         "No such image: sha256:0000000000000000",
		strings.Repeat("0", 64):           "No such image: " + strings.Repeat("0", 64),
		"app@" + string(b):                "No such image: app@" + string(b),
		"deadbeef":                        "No such image: deadbeef:latest",
	} {
		if _, err := h.Get(ctx, ref); says != "" && (!fault.Is(err, fault.NotFound) || err.Error() != says) {
			t.Errorf("%s: %v, want %s", ref, err, says)
		}
	}
	for _, ref := range []string{"", "APP", "a b", "../x", ":x", "app:", "app@sha256:x"} {
		if _, err := h.Get(ctx, ref); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if _, err := h.Get(ctx, "app@"+string(a)); err != nil {
		t.Errorf("name@id: %v", err)
	}
}

func TestTagsMove(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	a := h.mustLoad(t, dockerArchive([]string{"app:latest"}, oneFile("a", "1")).bytes())[0].ID
	b := h.mustLoad(t, dockerArchive([]string{"app:latest"}, oneFile("a", "2")).bytes())[0].ID
	check := func(ref string, want digest.Digest, tags ...string) {
		t.Helper()
		img, err := h.Get(ctx, ref)
		if err != nil || img.ID != want {
			t.Fatalf("%s is %v, %v", ref, img, err)
		}
		if fmt.Sprint(img.RepoTags) != fmt.Sprint(tags) || img.Dangling() != (len(tags) == 0) {
			t.Errorf("%s has %v, want %v", ref, img.RepoTags, tags)
		}
	}
	check("app", b, "app:latest")
	check(string(a), a)
	if err := h.Tag(ctx, a.Encoded()[:12], "other/name"); err != nil {
		t.Fatal(err)
	}
	check("other/name", a, "other/name:latest")
	if err := h.Tag(ctx, "other/name", "app"); err != nil {
		t.Fatal(err)
	}
	check("app", a, "app:latest", "other/name:latest")
	check(string(b), b)
	if err := h.Tag(ctx, "nope", "app"); !fault.Is(err, fault.NotFound) {
		t.Errorf("tag of nothing: %v", err)
	}
	for _, target := range []string{"UPPER", "x@" + string(a), "sha256:abc"} {
		if err := h.Tag(ctx, "app", target); !fault.Is(err, fault.Invalid) {
			t.Errorf("tag %s: %v", target, err)
		}
	}
	h.close()
	h = build(t, h.root)
	check("app", a, "app:latest", "other/name:latest")
}

// TestRemove walks docker's rules.
func TestRemove(t *testing.T) {
	running, stopped := []User{{"0123456789abcdef", true}}, []User{{"fedcba9876543210", false}}
	shared, own := oneFile("shared", "1"), oneFile("own", "2")
	for _, tc := range []struct {
		name  string
		tags  []string
		ref   string // ID stands for the id, SHORT for the short one
		o     RemoveOptions
		users []User
		want  string // what went, or the error
		left  bool   // the image itself
	}{
		{"the only name", []string{"app:1"}, "app:1", RemoveOptions{}, nil, "Untagged app:1, Deleted ID, Deleted CHAIN", false},
		{"one of two names", []string{"app:1", "app:2"}, "app:1", RemoveOptions{}, nil, "Untagged app:1", true},
		{"one of two names, in use", []string{"app:1", "app:2"}, "app:1", RemoveOptions{}, running, "Untagged app:1", true},
		{"the only name, by id", []string{"app:1"}, "ID", RemoveOptions{}, nil, "Untagged app:1, Deleted ID, Deleted CHAIN", false},
		{"by short id", []string{"app:1"}, "SHORT", RemoveOptions{}, nil, "Untagged app:1, Deleted ID, Deleted CHAIN", false},
		{"no name, by id", nil, "ID", RemoveOptions{}, nil, "Deleted ID, Deleted CHAIN", false},
		{"two names, by id", []string{"app:1", "app:2"}, "ID", RemoveOptions{}, nil, "error conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories", true},
		{"two names, by id, forced", []string{"app:1", "b:2"}, "ID", RemoveOptions{Force: true}, nil, "Untagged app:1, Untagged b:2, Deleted ID, Deleted CHAIN", false},
		{"stopped container", []string{"app:1"}, "app:1", RemoveOptions{}, stopped, "error conflict: unable to remove repository reference \"app:1\" (must force) - container fedcba987654 is using its referenced image SHORT", true},
		{"stopped container, by id", []string{"app:1"}, "ID", RemoveOptions{}, stopped, "error conflict: unable to delete SHORT (must be forced) - image is being used by stopped container fedcba987654", true},
		{"stopped container, forced", []string{"app:1"}, "app:1", RemoveOptions{Force: true}, stopped, "Untagged app:1, Deleted ID, Deleted CHAIN", false},
		{"running container, forced", []string{"app:1"}, "app:1", RemoveOptions{Force: true}, running, "Untagged app:1", true},
		{"running container, by id, forced", []string{"app:1"}, "ID", RemoveOptions{Force: true}, running, "error conflict: unable to delete SHORT (cannot be forced) - image is being used by running container 0123456789ab", true},
		{"not there", []string{"app:1"}, "nope", RemoveOptions{}, nil, "error No such image: nope:latest", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := build(t, t.TempDir())
			h.mustLoad(t, dockerArchive([]string{"base:1"}, shared).bytes())
			id := h.mustLoad(t, dockerArchive(tc.tags, shared, own).bytes())[0].ID
			chain := chainIDs([]digest.Digest{digest.FromBytes(shared), digest.FromBytes(own)})[1]
			expand := strings.NewReplacer("ID", string(id), "SHORT", id.Encoded()[:12], "CHAIN", string(chain))
			tc.o.InUse = func(digest.Digest) []User { return tc.users }
			answer, err := h.Remove(context.Background(), expand.Replace(tc.ref), tc.o)
			if got := describe(answer, err); got != expand.Replace(tc.want) {
				t.Errorf("got  %s\nwant %s", got, expand.Replace(tc.want))
			}
			_, err = h.Get(context.Background(), string(id))
			if (err == nil) != tc.left {
				t.Errorf("afterwards: %v", err)
			}
			if _, err := h.Get(context.Background(), "base:1"); err != nil {
				t.Error(err)
			}
			h.noWaste(t)
			h.close()
			h = build(t, h.root)
			if _, err := h.Get(context.Background(), string(id)); (err == nil) != tc.left {
				t.Errorf("after opening anew: %v", err)
			}
		})
	}
}

func describe(answer []api.DeleteResponse, err error) string {
	if err != nil {
		return "error " + err.Error()
	}
	var parts []string
	for _, a := range answer {
		if a.Untagged != "" {
			parts = append(parts, "Untagged "+a.Untagged)
		} else {
			parts = append(parts, "Deleted "+a.Deleted)
		}
	}
	return strings.Join(parts, ", ")
}

// TestRemovedImageOfAContainer: the container keeps its files.
func TestRemovedImageOfAContainer(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	id := h.mustLoad(t, dockerArchive([]string{"app:1"}, oneFile("a", "1")).bytes())[0].ID
	img, _ := h.Get(ctx, string(id))
	if _, _, err := h.lay.Writable("c1", img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	if answer, err := h.Remove(ctx, "app:1", RemoveOptions{Force: true}); err != nil || len(answer) != 2 {
		t.Fatalf("%v, %v", answer, err)
	}
	for range 2 { // also after opening anew, which sweeps
		if _, err := h.lay.Lower(img.DiffIDs); err != nil {
			t.Fatalf("the container lost its layers: %v", err)
		}
		h.close()
		h = build(t, h.root)
	}
	if err := h.lay.RemoveWritable("c1"); err != nil {
		t.Fatal(err)
	}
	h.close()
	h = build(t, h.root)
	h.empty(t)
}

// TestParents: an image that another was made from stays until that is gone.
func TestParents(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	base := oneFile("a", "1")
	parent := h.mustLoad(t, dockerArchive([]string{"base:1"}, base).bytes())[0].ID
	hold := h.lay.Hold()
	child, err := h.Register(ctx, hold, []Registration{{Config: mustJSON(map[string]any{"os": "linux", "author": "child",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{string(digest.FromBytes(base))}}}), Parent: parent}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.Release(hold)
	if _, err := h.Remove(ctx, string(parent), RemoveOptions{Force: true}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "dependent child images") {
		t.Errorf("got %v", err)
	}
	if err := h.Tag(ctx, "base:1", "other:1"); err != nil {
		t.Fatal(err)
	}
	h.Remove(ctx, "base:1", RemoveOptions{})
	if answer, err := h.Remove(ctx, "other:1", RemoveOptions{}); describe(answer, err) != "Untagged other:1" {
		t.Errorf("the last name of a parent: %s", describe(answer, err))
	}
	h.Tag(ctx, string(parent), "other:2")
	if answer, err := h.Remove(ctx, string(child[0].ID), RemoveOptions{Prune: true}); err != nil || len(answer) != 1 {
		t.Errorf("the named parent went too: %v, %v", answer, err)
	}
	h.noWaste(t)
}

func TestDamagedRecordIsPassedOver(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	a := h.mustLoad(t, dockerArchive([]string{"app:1"}, oneFile("a", "1")).bytes())[0].ID
	h.mustLoad(t, dockerArchive([]string{"app:2"}, oneFile("a", "2")).bytes())
	broken := metadata.NewBucket[string]("images")
	if err := h.db.Update(func(tx *metadata.Tx) error { return broken.Put(tx, string(a), "not a record") }); err != nil {
		t.Fatal(err)
	}
	h.close()
	h = build(t, h.root)
	if _, err := h.Get(ctx, "app:2"); err != nil {
		t.Error(err)
	}
	if _, err := h.Get(ctx, "app:1"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if !h.lay.Has(digest.FromBytes(oneFile("a", "1"))) {
		t.Error("the layers of the image with the unreadable record were removed")
	}
	h.mustLoad(t, dockerArchive([]string{"app:1"}, oneFile("a", "1")).bytes())
	if _, err := h.Get(ctx, "app:1"); err != nil {
		t.Errorf("loaded again: %v", err)
	}
}

func TestDamagedConfigIsNamedAndRepaired(t *testing.T) {
	h := build(t, t.TempDir())
	data := dockerArchive([]string{"app:1"}, oneFile("a", "1")).bytes()
	id := h.mustLoad(t, data)[0].ID
	h.close()
	os.WriteFile(filepath.Join(h.root, "content", "blobs", "sha256", id.Encoded()), []byte("{}"), 0o600)
	h = build(t, h.root)
	if _, err := h.Get(context.Background(), "app:1"); err == nil || !strings.Contains(err.Error(), string(id)) {
		t.Errorf("got %v", err)
	}
	h.mustLoad(t, data)
	if _, err := h.Get(context.Background(), "app:1"); err != nil {
		t.Error(err)
	}
}

func TestConcurrentLoadsAndRemovals(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	data := dockerArchive([]string{"app:1"}, oneFile("a", "1"), oneFile("b", "2")).bytes()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				h.mustLoad(t, data)
			}
		})
		wg.Go(func() {
			for range 10 {
				if _, err := h.Remove(ctx, "app:1", RemoveOptions{}); err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.noWaste(t)
	h.mustLoad(t, data)
	if got := h.read(t, "app:1", "b"); got != "2" {
		t.Errorf("got %q", got)
	}
}

func TestImport(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	root := gz(oneFile("bin/sh", "#!"))
	img, err := h.Import(ctx, strings.NewReader(string(root)), ImportOptions{Ref: "app", Message: "by hand", Changes: []string{
		"CMD /bin/sh -l", `ENTRYPOINT ["/bin/sh", "-c"]`, "ENV A=1 B=\"two words\" C=$A-${B:-x}", "env OLD the rest of it",
		"EXPOSE 80 53/udp 90-92", "LABEL a=b 'c d'=e", "USER 1:2", "VOLUME /data /more", "WORKDIR /srv", "WORKDIR sub/../x",
		"ONBUILD RUN make", "STOPSIGNAL SIGINT", `SHELL ["/bin/ash","-c"]`,
		"HEALTHCHECK --interval=5s --retries=3 CMD curl -f localhost",
	}, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	c := img.Config.Config
	want := v1.DockerOCIImageConfig{}
	want.Cmd = []string{"/bin/sh", "-c", "/bin/sh -l"}
	want.Entrypoint = []string{"/bin/sh", "-c"}
	want.Env = []string{"A=1", "B=two words", "C=-x", "OLD=the rest of it"}
	want.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}, "92/tcp": {}}
	want.Labels = map[string]string{"a": "b", "c d": "e"}
	want.User = "1:2"
	want.Volumes = map[string]struct{}{"/data": {}, "/more": {}}
	want.WorkingDir = "/srv/x"
	want.OnBuild = []string{"RUN make"}
	want.StopSignal = "SIGINT"
	want.Shell = []string{"/bin/ash", "-c"}
	want.Healthcheck = &v1.HealthcheckConfig{Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: 5e9, Retries: 3}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if img.Architecture != "arm64" || img.Config.History[0].Comment != "by hand" || img.Created.IsZero() || img.RepoTags[0] != "app:latest" {
		t.Errorf("image %+v", img)
	}
	for _, tc := range []struct {
		changes []string
		data    []byte
		err     error
	}{
		{[]string{"RUN rm -rf /"}, root, nil},
		{[]string{"ENV A"}, root, nil},
		{[]string{"LABEL x='a"}, root, errQuote},
		{[]string{"EXPOSE 70000"}, root, nil},
		{[]string{"SHELL /bin/sh"}, root, nil},
		{[]string{"HEALTHCHECK maybe"}, root, nil},
		{nil, nil, nil}, // nothing is no archive
		{nil, []byte("no archive at all, but some text that goes on"), nil},
	} {
		if _, err := h.Import(ctx, strings.NewReader(string(tc.data)), ImportOptions{Changes: tc.changes}); !fault.Is(err, fault.Invalid) || tc.err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%v: %v", tc.changes, err)
		}
	}
	if _, err := h.Import(ctx, bytes.NewReader(new(tarball).bytes()), ImportOptions{Ref: "nothing"}); err != nil {
		t.Errorf("an archive without files: %v", err)
	}
	h.noWaste(t)
}
