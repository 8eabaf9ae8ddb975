package layer

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func changesOf(t testing.TB, s *Store, id string, ids []digest.Digest) []string {
	t.Helper()
	lower, err := s.Lower(ids)
	if err != nil {
		t.Fatal(err)
	}
	all, err := Changes(context.Background(), filepath.Join(s.containers, id, "upper"), lower, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range all {
		lines = append(lines, c.Kind.String()+" "+c.Path)
	}
	return lines
}

// TestChangesAreDockers: each case is what docker 28 with overlay2 says.
func TestChangesAreDockers(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	var ids []digest.Digest
	for _, ents := range [][]ent{
		{dir("etc"), file("etc/a", "1"), file("etc/b", "2"), file("top", "3"), dir("d"), dir("d/e"), file("d/e/f", "4"), file("d/g", "5"), sym("l", "top"), file("gone", "x")},
		{file("d/e/.wh.f", ""), file("d/h", "6"), file(".wh.gone", ""), dir("q"), file("q/1", ""), file("q/2", "")},
		{file("q/.wh.2", ""), file("q/3", "")},
	} {
		l, err := apply(s, pack(t, ents...))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.DiffID)
	}
	for name, tc := range map[string]struct {
		do   func(m string) error
		want []string
	}{
		"nothing":               {func(m string) error { return nil }, nil},
		"a new file at the top": {func(m string) error { return os.WriteFile(m+"/n", nil, 0o600) }, []string{"A /n"}},
		"a new file below":      {func(m string) error { return os.WriteFile(m+"/d/e/n", nil, 0o600) }, []string{"C /d", "C /d/e", "A /d/e/n"}},
		"a new directory":       {func(m string) error { return os.MkdirAll(m+"/x/y", 0o755) }, []string{"A /x", "A /x/y"}},
		"written":               {func(m string) error { return os.WriteFile(m+"/etc/a", []byte("9"), 0) }, []string{"C /etc", "C /etc/a"}},
		"mode":                  {func(m string) error { return os.Chmod(m+"/etc/a", 0o600) }, []string{"C /etc", "C /etc/a"}},
		"mode of a directory":   {func(m string) error { return os.Chmod(m+"/d/e", 0o700) }, []string{"C /d", "C /d/e"}},
		"copied up, and no more": {func(m string) error {
			f, err := os.OpenFile(m+"/etc/a", os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err
		}, nil},
		"touched":                {func(m string) error { return os.Chtimes(m+"/etc/a", stamp, stamp.Add(time.Hour)) }, []string{"C /etc", "C /etc/a"}},
		"a directory touched":    {func(m string) error { return os.Chtimes(m+"/etc", stamp, stamp.Add(time.Hour)) }, nil},
		"deleted":                {func(m string) error { return os.Remove(m + "/etc/a") }, []string{"C /etc", "D /etc/a"}},
		"deleted at the top":     {func(m string) error { return os.Remove(m + "/top") }, []string{"D /top"}},
		"directory deleted":      {func(m string) error { return os.RemoveAll(m + "/d") }, []string{"D /d"}},
		"made and deleted":       {func(m string) error { os.Mkdir(m+"/x", 0o755); return os.Remove(m + "/x") }, nil},
		"directory made anew":    {func(m string) error { os.RemoveAll(m + "/d"); return os.Mkdir(m+"/d", 0o755) }, []string{"C /d", "D /d/e", "D /d/g", "D /d/h"}},
		"anew, of three layers":  {func(m string) error { os.RemoveAll(m + "/q"); return os.Mkdir(m+"/q", 0o755) }, []string{"C /q", "D /q/1", "D /q/3"}},
		"directory for a file":   {func(m string) error { os.Remove(m + "/top"); return os.MkdirAll(m+"/top/x", 0o755) }, []string{"C /top", "A /top/x"}},
		"file for a directory":   {func(m string) error { os.RemoveAll(m + "/d"); return os.WriteFile(m+"/d", nil, 0o600) }, []string{"C /d"}},
		"symlink changed":        {func(m string) error { os.Remove(m + "/l"); return os.Symlink("etc", m+"/l") }, []string{"C /l"}},
		"what was deleted below": {func(m string) error { return os.WriteFile(m+"/gone", nil, 0o600) }, []string{"A /gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			id := digest.FromString(name).Encoded()
			m := mountOverlay(t, s, id, ids)
			if err := tc.do(m); err != nil {
				t.Fatal(err)
			}
			if got := changesOf(t, s, id, ids); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
