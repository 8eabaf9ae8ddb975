package local

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/registry/store"
	"berth/internal/registry/store/storetest"
)

var ctx = context.Background()

func openDir(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenDir(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Storage, func() store.Storage) {
		dir := t.TempDir()
		s := openDir(t, dir)
		t.Cleanup(func() { s.Close() })
		return s, func() store.Storage {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openDir(t, dir)
			return s
		}
	})
}

func put(t *testing.T, s *Store, repo, text string) digest.Digest {
	t.Helper()
	b, err := s.PutBlob(ctx, repo, strings.NewReader(text), digest.FromString(text), -1)
	if err != nil {
		t.Fatal(err)
	}
	return b.Digest
}

func TestSecondServerOnADirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	defer s.Close()
	if _, err := OpenDir(dir, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
}

// What a power cut does to bytes that were not synced: the file is there and
// holds something else.
func TestTornBlobsOfAnInterruptedPushAreDropped(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	whole, torn := put(t, s, "r", "whole"), put(t, s, "r", "torn")
	// As after a kill: nothing of Close happened.
	if err := s.db.Update(func(tx *metadata.Tx) error {
		for _, d := range []digest.Digest{whole, torn} {
			if err := probation.Put(tx, d.String(), empty{}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	close(s.closed)
	s.wg.Wait()
	s.db.Close()
	if err := os.WriteFile(filepath.Join(dir, "content/blobs/sha256", torn.Encoded()), make([]byte, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir)
	defer s.Close()
	if _, err := s.Blob(ctx, "r", whole); err != nil {
		t.Errorf("the whole blob: %v", err)
	}
	if _, err := s.Blob(ctx, "r", torn); !fault.Is(err, fault.NotFound) {
		t.Errorf("the torn blob: %v", err)
	}
	put(t, s, "r", "torn")
	f, _, err := s.OpenBlob(ctx, "r", torn)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, _ := io.ReadAll(f); string(got) != "torn" {
		t.Errorf("pushed again, it reads %q", got)
	}
}

func TestBytesThatNobodyLinksGoAndOthersStay(t *testing.T) {
	dir := t.TempDir()
	c, err := content.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := metadata.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	engine := digest.FromString("the engine's own")
	c.AddOwner(func(d digest.Digest) bool { return d == engine })
	s, err := Open(c, db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, "r", "the engine's own")
	mine := put(t, s, "r", "pushed")
	if _, err := c.CollectAll(); err != nil {
		t.Fatal(err)
	}
	if !c.Has(mine) {
		t.Error("a collection of the engine took what a repository links")
	}
	for _, d := range []digest.Digest{mine, engine} {
		if err := s.DeleteBlob(ctx, "r", d); err != nil {
			t.Fatal(err)
		}
	}
	if c.Has(mine) || !c.Has(engine) {
		t.Errorf("deleted: mine %v, the engine's %v", !c.Has(mine), !c.Has(engine))
	}
}

func TestLinkingCopiesNothing(t *testing.T) {
	s := openDir(t, t.TempDir())
	defer s.Close()
	info, err := s.content.Ingest(ctx, strings.NewReader("a layer"), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LinkBlobs(ctx, "mine/app", []store.Blob{{Digest: info.Digest, Size: 7}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blob(ctx, "mine/app", info.Digest); err != nil {
		t.Error(err)
	}
	if err := s.LinkBlobs(ctx, "mine/app", []store.Blob{{Digest: info.Digest, Size: 8}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("with a wrong size: %v", err)
	}
	if err := s.LinkBlobs(ctx, "mine/app", []store.Blob{{Digest: digest.FromString("no"), Size: 2}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("what is not there: %v", err)
	}
}
