package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// apiDoc is the file that TestTheDocumentOfTheAPI writes and compares.
const apiDoc = "../../docs/api.md"

// TestTheDocumentOfTheAPI makes docs/api.md out of the routing tables, the code
// of the handlers and moby's description of the API, and compares it with the
// file. `make docs` writes it.
func TestTheDocumentOfTheAPI(t *testing.T) {
	file := swagger(t)
	text := describeAPI(t, file)
	if os.Getenv("BERTH_WRITE_DOCS") != "" {
		if err := os.WriteFile(apiDoc, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(apiDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("docs/api.md is not what the code says: run make docs\n%s", firstDifference(string(have), text))
	}
}

func firstDifference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return fmt.Sprintf("line %d is\n%s\nand should be\n%s", i+1, h[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, should be %d", len(h), len(w))
}

// operation is one endpoint of docker's API.
type operation struct {
	method, path, tag string
	query             []string
}

// operations reads the paths section of a description.
func operations(t *testing.T, file string) []operation {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var (
		pathLine   = regexp.MustCompile(`^  (/\S*):`)
		methodLine = regexp.MustCompile(`^    (get|post|put|delete|head):`)
		tagLine    = regexp.MustCompile(`^      tags: \["(.*)"\]`)
		tagItem    = regexp.MustCompile(`^        - "([A-Z]\w+)"$`)
		nameLine   = regexp.MustCompile(`^        - name: "?([\w-]+)"?`)
		list       []operation
		path, name string
		inPaths    bool
	)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		inPaths = inPaths || strings.HasPrefix(line, "paths:")
		if !inPaths {
			continue
		}
		if m := pathLine.FindStringSubmatch(line); m != nil {
			path = m[1]
		}
		if m := methodLine.FindStringSubmatch(line); m != nil {
			list = append(list, operation{method: strings.ToUpper(m[1]), path: path})
		}
		if len(list) == 0 {
			continue
		}
		last := &list[len(list)-1]
		if m := tagLine.FindStringSubmatch(line); m != nil {
			last.tag = m[1]
		} else if m := tagItem.FindStringSubmatch(line); m != nil && last.tag == "" {
			last.tag = m[1]
		}
		if m := nameLine.FindStringSubmatch(line); m != nil {
			name = m[1]
		}
		if strings.TrimSpace(line) == `in: "query"` || strings.TrimSpace(line) == "in: query" {
			last.query = append(last.query, name)
		}
	}
	return list
}

var hole = regexp.MustCompile(`\{[^}]*\}|\([^)]*\)`)

func shapeOf(method, path string) string { return method + " " + hole.ReplaceAllString(path, "*") }

// firstVersions tells for each endpoint the oldest description, of those served,
// that has it.
func firstVersions(t *testing.T, file string) map[string]int {
	t.Helper()
	dir := filepath.Join(filepath.Dir(file), "docs")
	first := map[string]int{}
	for minor := int(newest) % 1000; minor > int(oldest)%1000; minor-- {
		for _, op := range operations(t, filepath.Join(dir, fmt.Sprintf("v1.%d.yaml", minor))) {
			first[shapeOf(op.method, op.path)] = minor
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "v1.24.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^`(GET|POST|PUT|DELETE|HEAD) (/[^`?]*)`").FindAllStringSubmatch(string(text), -1) {
		first[shapeOf(m[1], m[2])] = int(oldest) % 1000
	}
	return first
}

// handlers is the code of the package by function name.
type handlers map[string]*ast.FuncDecl

func parseHandlers(t *testing.T) handlers {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := handlers{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				all[fn.Name.Name] = fn
			}
		}
	}
	return all
}

// reach collects the words and the versions that a piece of code and whatever
// it calls in this package mention. Of a switch about the last part of a path
// only the case of that part counts.
func (h handlers) reach(node ast.Node, last string, seen map[string]bool, words map[string]bool, versions map[int]bool) {
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CaseClause:
			if last != "" && len(n.List) > 0 && isWord(n.List[0]) && !slices.ContainsFunc(n.List, func(e ast.Expr) bool { return wordOf(e) == last }) {
				return false
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				words[wordOf(n)] = true
			}
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "before" && len(n.Args) == 1 {
				if lit, ok := n.Args[0].(*ast.BasicLit); ok {
					if v, err := strconv.Atoi(lit.Value); err == nil {
						versions[v] = true
					}
				}
			}
		case *ast.Ident:
			if fn := h[n.Name]; fn != nil && !seen[n.Name] && n.Name != "fail" && n.Name != "reply" {
				seen[n.Name] = true
				h.reach(fn.Body, "", seen, words, versions)
			}
		}
		return true
	})
}

func isWord(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

func wordOf(e ast.Expr) string {
	if !isWord(e) {
		return ""
	}
	text, _ := strconv.Unquote(e.(*ast.BasicLit).Value)
	return text
}

// tables maps the patterns of the source's routing tables to the names of their
// handlers.
func tables(t *testing.T) map[string]string {
	t.Helper()
	names := map[string]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^\t\{"([A-Z]+ /[^"]*)", (\w+)\},`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range entry.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = m[2]
		}
	}
	for _, rt := range slices.Concat(routes, routesLife, routesBuild) {
		if names[rt.pattern] == "" {
			t.Errorf("the route %s is not found in the source", rt.pattern)
		}
	}
	return names
}

// apiNotes says what neither the tables nor the code of a handler tell.
var apiNotes = map[string]string{
	"GET /plugins":                 "there are none: the list is empty",
	"POST /build":                  "docker's classic builder (`DOCKER_BUILDKIT=0`); a step that was built before is found by its content",
	"POST /build/prune":            "the cache of `berth build`, which is the same",
	"GET /images/search":           "asks the registry that the term names, Docker Hub otherwise",
	"POST /containers/{id}/update": "limits and restart policy, of running containers too",
	"PUT /containers/{id}/archive": "tar, plain or gzip, bzip2 or zstd; nothing in the container is run to unpack it",
	"GET /events":                  "the last 1024 are kept for `since`, over restarts of the engine too",
	"POST /containers/{id}/attach": "the stream is the monitor's: it goes on when the engine is replaced",
	"POST /networks/create":        "driver bridge",
	"POST /volumes/create":         "driver local, with the mount options of docker's",
	"POST /containers/create":      "a field that has no effect here is refused by name",
	"GET /system/df":               "also `layers`, and what each byte of the data directory belongs to, for `berth system df -v`",
	"POST /images/create":          "pull and import; also `allPlatforms=1` and `all=1` (all tags)",
	"POST /images/load":            "archives of docker, podman and skopeo, OCI layouts",
}

// describeAPI writes the document.
func describeAPI(t *testing.T, file string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, apiIntro, oldest, newest, newest, maxBody>>20)
	api, code, names, first := New(&stub{}, nil), parseHandlers(t), tables(t), firstVersions(t, file)
	groups := map[string][]string{}
	used := map[string]bool{}
	offered, total := 0, 0
	for _, op := range operations(t, file) {
		req := httptest.NewRequest(op.method, strings.ReplaceAll(hole.ReplaceAllString(op.path, "x"), "//", "/"), nil)
		_, pattern := api.mux.Handler(req)
		if pattern == "HEAD /_ping" || op.method == http.MethodHead && names[pattern] == "" {
			pattern = "GET " + strings.TrimPrefix(strings.TrimPrefix(pattern, "HEAD "), "GET ")
		}
		used[pattern] = true
		total++
		status, notes := refusedBy(t, op)
		if status == "" {
			status = "offered"
			offered++
			notes = code.notes(op, names[pattern])
		}
		if n := apiNotes[op.method+" "+op.path]; n != "" {
			notes = append(notes, n)
		}
		since := "1." + strconv.Itoa(max(first[shapeOf(op.method, op.path)], int(oldest)%1000))
		groups[op.tag] = append(groups[op.tag], fmt.Sprintf("| `%s %s` | %s | %s | %s |", op.method, op.path, since, status, strings.Join(notes, "; ")))
	}
	tags := make([]string, 0, len(groups))
	for tag := range groups {
		tags = append(tags, tag)
	}
	sort.Strings(tags)
	fmt.Fprintf(&b, "\nOf docker's %d endpoints %d are offered; the others are refused by name.\n", total, offered)
	for _, tag := range tags {
		fmt.Fprintf(&b, "\n## %s\n\n| endpoint | since | status | notes |\n| --- | --- | --- | --- |\n%s\n", tag, strings.Join(groups[tag], "\n"))
	}
	b.WriteString("\n## Beyond docker\n\nWhat `berth` uses, and other clients may.\n\n| endpoint |\n| --- |\n")
	for _, rt := range slices.Concat(routes, routesLife, routesBuild) {
		if !used[rt.pattern] {
			fmt.Fprintf(&b, "| `%s` |\n", rt.pattern)
		}
	}
	return b.String()
}

const apiIntro = `<!-- Made by make docs out of internal/api and the description of the API in moby/api. Do not edit. -->

# The Engine API

berthd speaks the Docker Engine API from version %s to %s on its sockets, with and without a version in the path
(without: %s). Clients that are older or newer are told so in docker's words.

- An error is ` + "`{\"message\": \"...\"}`" + ` with the status that docker gives: 400 a request that makes no sense, 401 and 403 not
  allowed, 404 no such thing, 409 not now, 413 too large, 501 not offered, 503 not available, 504 given up, 507 no room.
  500 is a defect of the engine.
- A JSON body is at most %d MiB. A field that the API does not have is passed over as docker does it, and named in the
  answer's warnings where it has some (create, update). Bodies that are archives are bounded by the disk and by the
  limits for layers.
- A client that goes away ends the work of its request. One that reads slowly makes nobody wait.
- "Since" is the first version, of those served, that has the endpoint; an endpoint is there for older clients, too.
  "Ignored" are query parameters that docker's description of %[3]s has and the handler does not look at. "Differs before"
  are versions from which on the answer or the meaning of a parameter is another one.
`

// refusedBy asks for an endpoint and returns status and words of a refusal by
// name.
func refusedBy(t *testing.T, op operation) (status string, notes []string) {
	w := ask(t, &stub{}, op.method, hole.ReplaceAllString(op.path, "x"), "")
	if w.Code != http.StatusNotImplemented && w.Code != http.StatusServiceUnavailable {
		return "", nil
	}
	var answer struct{ Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Errorf("%s %s: %v", op.method, op.path, err)
	}
	if answer.Message == notManager {
		answer.Message = "not a swarm manager, in docker's words"
	}
	return strconv.Itoa(w.Code), []string{answer.Message}
}

// notes tells which parameters a handler ignores and where versions matter.
func (h handlers) notes(op operation, handler string) (notes []string) {
	words, versions := map[string]bool{}, map[int]bool{}
	if fn := h[handler]; fn != nil {
		last := op.path[strings.LastIndexByte(op.path, '/')+1:]
		if strings.HasPrefix(last, "{") || !strings.Contains(op.path, "{name}/") {
			last = ""
		}
		h.reach(fn.Body, last, map[string]bool{handler: true}, words, versions)
	}
	var ignored []string
	for _, q := range op.query {
		if !words[q] {
			ignored = append(ignored, "`"+q+"`")
		}
	}
	if len(ignored) > 0 {
		notes = append(notes, "ignored: "+strings.Join(ignored, ", "))
	}
	var before []string
	for v := range versions {
		if v > int(oldest)%1000 {
			before = append(before, "1."+strconv.Itoa(v))
		}
	}
	if sort.Strings(before); len(before) > 0 {
		notes = append(notes, "differs before "+strings.Join(before, ", "))
	}
	return notes
}
