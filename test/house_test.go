package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// imports is the table of ARCHITECTURE.md: which rooms a room may import. Rooms
// are the directories below internal and cmd; a room may import its own
// sub-packages, and all may import fault, sysmon and version.
var imports = map[string][]string{
	"cmd/berth":         {"cli"},
	"cmd/berthd":        {"api", "engine", "network", "registry"},
	"cmd/berth-runtime": {"runtime", "monitor"},
	"cli":               {"client", "credentials", "signature", "spelling", "wire"},
	"client":            {"wire"},
	"credentials":       {},
	"signature":         {},
	"api":               {"build", "engine", "wire"},
	"engine":            {"build", "container", "content", "events", "image", "layer", "logs", "metadata", "monitor", "network", "quota", "registry", "runtime", "signature", "spelling", "transfer", "volume", "wire"},
	"build":             {"container", "content", "image", "layer", "metadata", "overlay", "wire"},
	"container":         {"metadata", "overlay", "volume"},
	"events":            {},
	"transfer":          {"content", "image", "layer", "signature"},
	"image":             {"content", "layer", "metadata"},
	"layer":             {"quota"},
	"quota":             {},
	"registry":          {"content", "metadata"},
	"content":           {},
	"volume":            {"metadata", "quota"},
	"network":           {},
	"monitor":           {"logs", "overlay", "runtime"},
	"logs":              {},
	"runtime":           {"overlay"},
	"overlay":           {},
	"metadata":          {},
	"fault":             {},
	"version":           {},
	"spelling":          {},
	"sysmon":            {},
	"wire":              {},
}

// siblings is the table of the engine's own rooms: which of each other they know.
var siblings = map[string][]string{
	"vocabulary": {"cdi"},
	"spec":       {"vocabulary"},
	"cdi":        {},
	"filter":     {},
	"intake":     {},
	"registries": {},
	"session":    {},
	"tmpfs":      {},
	"images":     {"filter", "intake"},
	"builds":     {"filter", "images", "intake", "networks", "reclaim", "session", "spec", "tmpfs", "vocabulary", "why"},
	"reclaim":    {"filter", "images", "intake"},
	"networks":   {"filter", "reclaim", "vocabulary"},
	"machine":    {"vocabulary"},
	"measure":    {"spec", "vocabulary"},
	"why":        {"spec"},
}

const longestFile = 500

type sourceFile struct {
	path string
	ast  *ast.File
}

func sources(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	set := token.NewFileSet()
	for _, top := range []string{"../internal", "../cmd", "../bench"} {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err == nil {
				files = append(files, sourceFile{path, parsed})
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// room returns the room that a file below internal or cmd belongs to.
func room(path string) string {
	parts := strings.Split(filepath.ToSlash(path), "/")
	switch parts[1] {
	case "internal":
		return parts[2]
	case "cmd":
		return "cmd/" + parts[2]
	}
	return ""
}

func TestRoomsImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, file := range sources(t) {
		from := room(file.path)
		if from == "" {
			continue
		}
		allowed, known := imports[from]
		if !known {
			t.Errorf("%s: the room %s is not in the table", file.path, from)
			continue
		}
		may := map[string]bool{from: true, "fault": true, "sysmon": true, "version": true}
		for _, name := range allowed {
			may[name] = true
		}
		for _, spec := range file.ast.Imports {
			rest, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "berth/internal/")
			if !ours {
				continue
			}
			if to, _, _ := strings.Cut(rest, "/"); !may[to] {
				t.Errorf("%s: %s must not import %s", file.path, from, to)
			}
		}
	}
}

func TestRoomsImportOnlyTheSiblingsThatTheTableAllows(t *testing.T) {
	for _, file := range sources(t) {
		inside, ok := strings.CutPrefix(filepath.ToSlash(file.path), "../internal/engine/")
		from, _, below := strings.Cut(inside, "/")
		if !ok || !below {
			continue // the engine itself knows them all
		}
		allowed, known := siblings[from]
		if !known {
			t.Errorf("%s: the room engine/%s is not in the table", file.path, from)
			continue
		}
		for _, spec := range file.ast.Imports {
			rest, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "berth/internal/engine/")
			if to, _, _ := strings.Cut(rest, "/"); ours && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s: engine/%s must not know engine/%s", file.path, from, to)
			}
		}
	}
}

func TestEveryPackageSaysWhyItExists(t *testing.T) {
	documented := map[string]bool{}
	for _, file := range sources(t) {
		dir := filepath.Dir(file.path)
		documented[dir] = documented[dir] || file.ast.Doc != nil && len(file.ast.Doc.Text()) > 60
	}
	dirs := make([]string, 0, len(documented))
	for dir := range documented {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	for _, dir := range dirs {
		if !documented[dir] {
			t.Errorf("%s: no file has a package comment that says why the package exists", dir)
		}
	}
}

func TestNoFileOutgrowsItsRoom(t *testing.T) {
	for _, file := range sources(t) {
		text, err := os.ReadFile(file.path)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines > longestFile {
			t.Errorf("%s has %d lines, more than %d: split it by subject", file.path, lines, longestFile)
		}
	}
}
