package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/registry/store"
)

func testSweep(t *testing.T, open Opener) {
	s, _ := open(t)
	used, unused, touched := put(t, s, "r", "used"), put(t, s, "r", "unused"), put(t, s, "r", "touched")
	child, rawChild := manifest("child", used)
	index, rawIndex := manifest("index")
	index.Manifests = []digest.Digest{child.Digest}
	about, rawAbout := manifest("about")
	about.Subject = child.Digest
	loose, rawLoose := manifest("loose")
	for _, p := range []struct {
		m    store.Manifest
		raw  []byte
		tags []string
	}{{child, rawChild, nil}, {index, rawIndex, []string{"t"}}, {about, rawAbout, nil}, {loose, rawLoose, nil}} {
		ok(t, "put", s.PutManifest(ctx, "r", p.m, p.raw, p.tags, false))
	}
	o := store.SweepOptions{Grace: time.Hour, Untagged: true}
	if swept, err := s.Sweep(ctx, o); err != nil || swept.Blobs+swept.Manifests != 0 {
		t.Errorf("within the grace period: %+v, %v", swept, err)
	}
	o.Grace = 0
	o.Touched = func(_ string, d digest.Digest) bool { return d == touched.Digest }
	o.DryRun = true
	dry, err := s.Sweep(ctx, o)
	if err != nil || dry.Blobs != 1 || dry.Manifests != 1 || statOf(s, "r", unused.Digest) != nil {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	o.DryRun = false
	swept, err := s.Sweep(ctx, o)
	if err != nil || swept.Blobs != 1 || swept.Manifests != 1 || swept.Freed == 0 {
		t.Errorf("%+v, %v", swept, err)
	}
	missing(t, "unused", statOf(s, "r", unused.Digest))
	ok(t, "touched", statOf(s, "r", touched.Digest))
	ok(t, "used", statOf(s, "r", used.Digest))
	_, err = s.Manifest(ctx, "r", loose.Digest)
	missing(t, "untagged", err)
	for _, m := range []store.Manifest{child, index, about} {
		_, err := s.Manifest(ctx, "r", m.Digest)
		ok(t, "reachable", err)
	}
	ok(t, "untag", s.DeleteTag(ctx, "r", "t"))
	if swept, err := s.Sweep(ctx, store.SweepOptions{}); err != nil || swept.Manifests != 0 || swept.Blobs != 1 {
		t.Errorf("untagged ones stay unless asked for: %+v, %v", swept, err)
	}
	if swept, err := s.Sweep(ctx, store.SweepOptions{Untagged: true}); err != nil || swept.Manifests != 3 || swept.Blobs != 1 {
		t.Errorf("%+v, %v", swept, err)
	}
	ok(t, "list", s.Repositories(ctx, "", func(name string) bool { t.Errorf("%s is left", name); return true }))
}

// testSweepBesidePushes pushes images while everything unused is collected at
// once: a push may be told that a blob is missing, but no acknowledged image
// ever lacks one.
func testSweepBesidePushes(t *testing.T, open Opener) {
	s, _ := open(t)
	stop := make(chan struct{})
	var sweeping, pushing sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Sweep(ctx, store.SweepOptions{Untagged: true}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 4 {
		pushing.Go(func() {
			for j := range 12 {
				text := fmt.Sprint("layer", j%3) // shared, so deleted under each other
				b, err := s.PutBlob(ctx, "r", strings.NewReader(text), digest.FromString(text), -1)
				if err != nil {
					t.Error(err)
					return
				}
				m, raw := manifest(fmt.Sprint(i, "-", j), b)
				tag := fmt.Sprint("t", i, "-", j)
				err = s.PutManifest(ctx, "r", m, raw, []string{tag}, false)
				var e *store.MissingError
				if errors.As(err, &e) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				f, _, err := s.OpenBlob(ctx, "r", b.Digest)
				if err != nil {
					t.Errorf("an acknowledged image lacks a layer: %v", err)
					return
				}
				f.Close()
				if _, _, err := s.ReadManifest(ctx, "r", m.Digest); err != nil {
					t.Errorf("an acknowledged image is gone: %v", err)
				}
			}
		})
	}
	pushing.Wait()
	close(stop)
	sweeping.Wait()
}
