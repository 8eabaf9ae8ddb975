package build

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/internal/build/solve"
)

func TestCacheFromAnotherMachine(t *testing.T) {
	const text = "FROM busybox AS a\nRUN date > /d; echo made > /f\nFROM busybox\nCOPY --from=a /f /\nRUN date > /e\n"
	here := newHouse(t)
	o := here.build(text, nil)
	var keys []string
	for _, s := range o.Steps {
		keys = append(keys, s.Key)
	}
	doc, layers, err := here.b.Cache().Share(keys)
	if err != nil || len(layers) != 4 {
		t.Fatal(layers, err)
	}
	there := newHouse(t)
	var fetched []digest.Digest
	fetch := func(ctx context.Context, want []digest.Digest) error {
		for _, d := range want {
			if there.layers.Has(d) {
				continue
			}
			fetched = append(fetched, d)
			r, w := io.Pipe()
			go func() { w.CloseWithError(here.layers.Export(ctx, d, w)) }()
			if _, err := there.layers.Apply(ctx, d, r); err != nil {
				return err
			}
		}
		return nil
	}
	p := there.build(text, nil, func(r *Request) { r.CacheFrom, r.Fetch = [][]byte{doc}, fetch })
	if p.ran() != "" || !slices.Equal(p.Layers, o.Layers) || len(fetched) != 2 {
		t.Errorf("it ran %q, %v and %v, %d layers were fetched: only those of the result are needed", p.ran(), p.Layers, o.Layers, len(fetched))
	}
	// What was tampered with is not believed.
	third := newHouse(t)
	bad := bytes.ReplaceAll(doc, []byte("made"), []byte("evil"))
	if n, err := third.b.Cache().Accept(bad); err != nil || n >= 3 {
		t.Errorf("%d tampered records are taken: %v", n, err)
	}
	for _, text := range []string{"", "{", "{}", `{"Version":1,"Steps":[{}]}`, `{"Version":1,"Steps":[{"Key":"../x","Layers":["sha256:../x"]}],"Digests":{"x":"y"}}`} {
		if n, _ := third.b.Cache().Accept([]byte(text)); n != 0 {
			t.Errorf("%s: %d records", text, n)
		}
	}
}

func TestInlineCache(t *testing.T) {
	h := newHouse(t)
	o := h.build("FROM busybox\nRUN echo x > /f\n", nil, func(r *Request) { r.InlineCache = true })
	if !strings.Contains(string(o.Config), InlineKey) {
		t.Errorf("config %s", o.Config)
	}
}

func TestCacheMountsTravel(t *testing.T) {
	h := newHouse(t)
	h.build("FROM busybox\nRUN --mount=type=cache,id=go,target=/k echo cached > /k/f\n", nil)
	var b bytes.Buffer
	if err := h.b.Cache().ExportMount(context.Background(), "go", &b); err != nil {
		t.Fatal(err)
	}
	there := newHouse(t)
	if err := there.b.Cache().ImportMount(context.Background(), "go", &b); err != nil {
		t.Fatal(err)
	}
	there.want(there.build("FROM busybox\nRUN --mount=type=cache,id=go,target=/k cp /k/f /f\n", nil), map[string]string{"f": "644 0:0 cached\n"})
	if ids := there.b.Cache().MountIDs(); len(ids) != 1 || ids[0] != "go" {
		t.Errorf("mounts %v", ids)
	}
	p, err := there.b.Prune(context.Background(), solve.PruneOptions{Filter: func(i solve.Item) bool { return i.Kind == "mount" }})
	if err != nil || len(p.Items) != 1 || len(there.b.Cache().MountIDs()) != 0 {
		t.Errorf("%+v %v", p, err)
	}
}

func FuzzAccept(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Steps":[{"Key":"x","Layers":[],"Parts":[]}]}`))
	cache := newHouse(f).b.Cache()
	f.Fuzz(func(t *testing.T, doc []byte) {
		if n, err := cache.Accept(doc); err != nil && n > 0 {
			t.Errorf("%d records of a document that is refused", n)
		}
	})
}
