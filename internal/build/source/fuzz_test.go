package source

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzSums reads files of remembered digests that something else wrote.
func FuzzSums(f *testing.F) {
	f.Add([]byte(sumsMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := filepath.Join(t.TempDir(), "sums")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := &Sums{path: p, known: map[string]*known{}}
		s.load()
	})
}

// FuzzParseIgnore reads ignore files.
func FuzzParseIgnore(f *testing.F) {
	f.Add([]byte("# c\n*\n!a/**\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseIgnore(data)
	})
}
