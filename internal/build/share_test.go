package build

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/build/solve"
)

const sharedText = "FROM busybox AS a\nRUN date > /d; echo made > /f\nFROM busybox\nCOPY --from=a /f /\nRUN date > /e\n"

// share returns what a build shares.
func (h *house) share(o *outcome) []byte {
	h.t.Helper()
	doc, _, err := h.b.Share(o.Result)
	if err != nil {
		h.t.Fatal(err)
	}
	return doc
}

// importing makes a build use a cache whose layers are in another house.
func (h *house) importing(doc []byte, from *house, fetched *[]digest.Digest) func(*Request) {
	h.t.Helper()
	m, err := solve.ReadImport(doc, "elsewhere")
	if err != nil {
		h.t.Fatal(err)
	}
	return func(r *Request) {
		r.CacheFrom = []*solve.Import{m}
		r.Fetch = func(ctx context.Context, want []digest.Digest) error {
			for _, d := range want {
				if h.layers.Has(d) {
					continue
				}
				*fetched = append(*fetched, d)
				r, w := io.Pipe()
				go func() { w.CloseWithError(from.layers.Export(ctx, d, w)) }()
				if _, err := h.layers.Apply(ctx, d, r); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func TestCacheFromAnotherMachine(t *testing.T) {
	here := newHouse(t)
	o := here.build(sharedText, nil)
	doc, layers, err := here.b.Share(o.Result)
	if err != nil || len(layers) != 3 {
		t.Fatal(layers, err)
	}
	there := newHouse(t)
	var fetched []digest.Digest
	p := there.build(sharedText, nil, there.importing(doc, here, &fetched))
	if p.ran() != "" || !slices.Equal(p.Layers, o.Layers) || len(fetched) != 2 {
		t.Errorf("it ran %q, %v and %v, %d layers were fetched: only those of the result are needed", p.ran(), p.Layers, o.Layers, len(fetched))
	}
	if p.why() != "found in elsewhere" {
		t.Errorf("why: %q", p.why())
	}
	// It can be passed on, also by somebody who never needed all layers.
	if again, _, err := there.b.Share(p.Result); err != nil || !bytes.Equal(again, doc) && len(again) < len(doc)/2 {
		t.Errorf("passed on: %s %v", again, err)
	}
	// What it brought stays, but only those who name the cache believe it.
	if q := there.build(sharedText, nil, there.importing(doc, here, &fetched)); q.ran() != "" || len(fetched) != 2 {
		t.Errorf("the second time: ran %q, fetched %d", q.ran(), len(fetched))
	}
	if q := there.build(sharedText, nil); strings.Count(q.ran(), "\n") != 2 {
		t.Errorf("a build that names no cache ran only %q", q.ran())
	}
}

// forge changes a record and makes its key agree.
func forge(t *testing.T, doc []byte, change func(*solve.Shared)) []byte {
	t.Helper()
	var s solve.Shared
	if err := json.Unmarshal(doc, &s); err != nil {
		t.Fatal(err)
	}
	change(&s)
	out, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestForgedCachesHarmNobodyElse(t *testing.T) {
	here := newHouse(t)
	o := here.build(sharedText, nil)
	doc := here.share(o)
	evil := here.build("FROM busybox\nRUN echo evil > /f\n", nil)
	other := digest.FromString("x")
	for name, c := range map[string]struct {
		change func(*solve.Shared)
		steps  int // that are left
	}{
		"as it is":          {func(*solve.Shared) {}, 3},
		"another key":       {func(s *solve.Shared) { s.Steps[0].Key = strings.Repeat("0", 64) }, 2},
		"another command":   {func(s *solve.Shared) { s.Steps[0].Parts[0].Value = "evil" }, 2},
		"another base":      {func(s *solve.Shared) { s.Steps[0].Layers[0] = other }, 2},
		"no layers":         {func(s *solve.Shared) { s.Steps[0].Layers = nil }, 2},
		"no digest":         {func(s *solve.Shared) { s.Steps[0].Layers[0] = "sha256:../x" }, 2},
		"another algorithm": {func(s *solve.Shared) { s.Steps[0].Layers[0] = digest.SHA512.FromString("x") }, 2},
		"a kind":            {func(s *solve.Shared) { s.Steps[0].Kind = "nothing" }, 2},
		"a year": {func(s *solve.Shared) {
			s.Steps[0].Created = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))
		}, 2},
		"too many layers": {func(s *solve.Shared) { s.Steps[0].Layers = slices.Repeat(s.Steps[0].Layers, 1000) }, 2},
	} {
		if m, err := solve.ReadImport(forge(t, doc, c.change), "x"); err != nil || m.Steps() != c.steps {
			t.Errorf("%s: %d steps, %v", name, m.Steps(), err)
		}
	}
	// A result that is a lie is believed by who names the cache, and by nobody else.
	lie := forge(t, doc, func(s *solve.Shared) {
		for i := range s.Steps {
			if r := &s.Steps[i]; strings.Contains(r.Name, "date > /d") {
				r.Layers[len(r.Layers)-1], r.Made = evil.Layers[1], evil.Layers[1]
			}
		}
		// and so is what is said about files
		for k := range s.Digests {
			s.Digests[k] = digest.FromString("files of somebody else")
		}
	})
	there := newHouse(t)
	var fetched []digest.Digest
	there.build(sharedText, nil, there.importing(lie, here, &fetched))
	q := there.build(sharedText, nil)
	there.want(q, map[string]string{"f": "644 0:0 made\n"})
	// The believer's own records say what was really copied.
	for _, r := range q.Steps {
		if r.Cached && strings.Contains(r.Name, "RUN") {
			t.Errorf("%s was found by a build that names no cache", r.Name)
		}
	}
}

// A cache may claim that files in a stage are other files, for which there is a
// result. Who believes it must not make others believe it by what he records.
func TestClaimedFilesAreNotRecorded(t *testing.T) {
	const stage = "FROM busybox AS a\nRUN echo %s > /f\nFROM busybox\nCOPY --from=a /f /\n"
	text := func(what string) string { return strings.ReplaceAll(stage, "%s", what) }
	here := newHouse(t)
	good, evil := here.build(text("good"), nil), here.build(text("evil"), nil)
	goodDoc, evilDoc := here.share(good), here.share(evil)
	digestOf := func(doc []byte) (d digest.Digest) {
		forge(t, doc, func(s *solve.Shared) {
			for _, v := range s.Digests {
				d = v
			}
		})
		return d
	}
	// The evil stage is said to hold the good one's file; the copy itself is not there.
	lie := forge(t, evilDoc, func(s *solve.Shared) {
		for k := range s.Digests {
			s.Digests[k] = digestOf(goodDoc)
		}
		s.Steps = slices.DeleteFunc(s.Steps, func(r solve.Record) bool { return strings.Contains(r.Name, "COPY") })
	})
	there := newHouse(t)
	var fetched []digest.Digest
	there.build(text("evil"), nil, there.importing(lie, here, &fetched))
	there.want(there.build(text("good"), nil), map[string]string{"f": "644 0:0 good\n"})
}

func TestLayersThatCannotBeHadAreMadeAnew(t *testing.T) {
	here, there := newHouse(t), newHouse(t)
	doc := here.share(here.build(sharedText, nil))
	m, err := solve.ReadImport(doc, "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	p := there.build(sharedText, nil, func(r *Request) {
		r.CacheFrom = []*solve.Import{m}
		r.Fetch = func(context.Context, []digest.Digest) error { asked++; return io.ErrUnexpectedEOF }
	})
	if asked == 0 || !strings.Contains(p.ran(), "date > /e") {
		t.Errorf("asked %d times, ran %q", asked, p.ran())
	}
	there.clean()
}

func TestInlineCache(t *testing.T) {
	h := newHouse(t)
	o := h.build("FROM busybox\nRUN echo x > /f\n", nil, func(r *Request) { r.InlineCache = true })
	if !strings.Contains(string(o.Config), InlineKey) {
		t.Errorf("config %s", o.Config)
	}
}

func TestCacheMountsTravel(t *testing.T) {
	const fill, look = "FROM busybox\nRUN --mount=type=cache,id=go,target=/k echo %s > /k/f\n", "FROM busybox\nRUN --mount=type=cache,id=go,target=/k cp /k/f /f # %s\n"
	h := newHouse(t)
	o := h.build(strings.ReplaceAll(fill, "%s", "cached"), nil)
	if !slices.Equal(o.Mounts, []string{"go"}) {
		t.Errorf("mounts %v", o.Mounts)
	}
	var b bytes.Buffer
	if err := h.b.Cache().ExportMount(context.Background(), "go", &b); err != nil {
		t.Fatal(err)
	}
	at := h.b.Cache().MountUsed("go")
	there := newHouse(t)
	restore := func(data []byte) func(*Request) {
		return func(r *Request) {
			r.Restore = func(_ context.Context, _ string, used time.Time) (io.ReadCloser, error) {
				if !at.After(used) {
					return nil, nil
				}
				return io.NopCloser(bytes.NewReader(data)), nil
			}
		}
	}
	there.want(there.build(strings.ReplaceAll(look, "%s", "1"), nil, restore(b.Bytes())), map[string]string{"f": "644 0:0 cached\n"})
	// What was used here since is newer.
	there.build(strings.ReplaceAll(fill, "%s", "here"), nil, restore(b.Bytes()))
	there.want(there.build(strings.ReplaceAll(look, "%s", "2"), nil, restore(b.Bytes())), map[string]string{"f": "644 0:0 here\n"})
	// What is damaged is left out, and the step runs.
	at = time.Now().Add(time.Hour)
	p := there.build(strings.ReplaceAll(fill, "%s", "anew"), nil, restore(b.Bytes()[:300]))
	if !strings.Contains(p.output, "cache mount go is not restored") {
		t.Errorf("output %q", p.output)
	}
	items, err := there.b.Prune(context.Background(), solve.PruneOptions{Filter: func(i solve.Item) bool { return i.Kind == "mount" }})
	if err != nil || len(items.Items) != 1 || !there.b.Cache().MountUsed("go").IsZero() {
		t.Errorf("%+v %v", items, err)
	}
}

func FuzzReadImport(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Steps":[{"Key":"x","Layers":[],"Parts":[]}]}`))
	f.Add([]byte(`{"Version":1,"Steps":[{"Key":"../x","Layers":["sha256:../x"]}],"Digests":{"x":"y"}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		m, err := solve.ReadImport(doc, "fuzz")
		if err != nil {
			return
		}
		if m.Steps() > len(doc)/20 {
			t.Errorf("%d steps in %d bytes", m.Steps(), len(doc))
		}
	})
}
