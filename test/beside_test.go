package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// beside is docker's own engine and ours on one machine. The same requests go to
// both, and what a client would notice of the answers is compared: what docker's
// clients rely on is what docker does, not what its description says.
type beside struct {
	*host
	peer    string               // path of the socket of docker's engine
	words   map[string][2]string // what stands for $name in requests: docker's, ours
	allowed []difference
	used    map[int]bool // of allowed
}

// difference is one that is meant: what is allowed to differ, and why.
type difference struct {
	request string // "GET /info"; what it begins with
	says    string // part of the line that names the difference
	reason  string
}

// call is one request. In path, body and header $name stands for what the test
// knows of each side under that name.
type call struct {
	method, path, body string
	header             map[string]string
	since              string   // version of the API from which on it is made; "" means always
	values             []string // paths of the answer whose values must be the same, too
}

// String names the request.
func (c call) String() string { return c.method + " " + c.path }

// answer is what one engine said to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// newBeside starts both engines with nothing in them.
func newBeside(t *testing.T, args ...string) *beside {
	t.Helper()
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("needs docker's own engine")
	}
	h := newHost(t)
	h.args = args
	h.startEngine()
	socket, err := h.startDocker()
	if err != nil {
		t.Skipf("docker's own engine does not start here: %v", err)
	}
	// Docker's engine gives a container ten seconds to end.
	t.Cleanup(func() { _ = h.within("sh", "-c", "docker -H "+socket+" rm -f $(docker -H "+socket+" ps -aq)").Run() })
	return &beside{host: h, peer: strings.TrimPrefix(socket, "unix://"), words: map[string][2]string{}, used: map[int]bool{}}
}

// everything reports whether the long form of a comparison is asked for: more
// versions of the API.
func everything() bool { return os.Getenv("BERTH_DIFFERENTIAL") == "all" }

// versions are those that both engines speak and that are compared.
func versions() []string {
	if everything() {
		return []string{"1.24", "1.30", "1.41"}
	}
	return []string{"1.41"}
}

// older compares versions of the API.
func older(a, b string) bool {
	return len(a) < len(b) || len(a) == len(b) && a < b
}

// socketOf returns the socket of docker's engine (0) or ours (1).
func (b *beside) socketOf(side int) string {
	return []string{b.peer, b.path("run", "berth.sock")}[side]
}

// know gives a name to what the two engines call differently: a member of their
// answers to one request.
func (b *beside) know(name, member string, both [2]answer) {
	b.t.Helper()
	var word [2]string
	for side, a := range both {
		var members map[string]any
		if err := json.Unmarshal(a.body, &members); err != nil {
			b.t.Fatalf("%s: %v in %s", name, err, a.body)
		}
		word[side] = fmt.Sprint(members[member])
	}
	b.words[name] = word
}

// fill puts what a side knows into a text.
func (b *beside) fill(side int, text string) string {
	for name, word := range b.words {
		text = strings.ReplaceAll(text, "$"+name, word[side])
	}
	return text
}

// on sends a request to one side. An answer that does not end by itself is cut
// off with the context.
func (b *beside) on(ctx context.Context, side int, version string, c call) (answer, error) {
	path := b.fill(side, c.path)
	if version != "" {
		path = "/v" + version + path
	}
	req, err := http.NewRequestWithContext(ctx, c.method, "http://engine"+path, strings.NewReader(b.fill(side, c.body)))
	if err != nil {
		return answer{}, err
	}
	if c.body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		req.Header.Set(k, b.fill(side, v))
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.socketOf(side))
	}}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if ctx.Err() != nil {
		err = nil
	}
	return answer{resp.StatusCode, resp.Header, body}, err
}

// both sends a request to both sides, docker first.
func (b *beside) both(version string, c call) (out [2]answer) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for side := range out {
		var err error
		if out[side], err = b.on(ctx, side, version, c); err != nil || ctx.Err() != nil {
			b.t.Errorf("%s %s: %s: %v", version, []string{"docker", "berth"}[side], c, err)
		}
	}
	return out
}

// make sends a request to both sides, which must succeed.
func (b *beside) make(c call) [2]answer {
	b.t.Helper()
	out := b.both("1.41", c)
	for side, a := range out {
		if a.status >= 300 {
			b.t.Fatalf("%s: %s: %d %s", []string{"docker", "berth"}[side], c, a.status, a.body)
		}
	}
	return out
}

// compare makes every call on every version and reports what differs.
func (b *beside) compare(calls []call) {
	b.t.Helper()
	for _, version := range versions() {
		for _, c := range calls {
			if c.since == "" || !older(version, c.since) {
				both := b.both(version, c)
				b.report(version, c, both)
			}
		}
	}
}

// report says how two answers differ.
func (b *beside) report(version string, c call, both [2]answer) {
	b.t.Helper()
	var bad []string
	for _, d := range differences(both, c.values) {
		if !b.meant(c, d) {
			bad = append(bad, d)
		}
	}
	if len(bad) == 0 {
		return
	}
	if both[0].status != both[1].status {
		bad = append(bad, fmt.Sprintf("docker said %.300s", both[0].body), fmt.Sprintf("berth said  %.300s", both[1].body))
	}
	b.t.Errorf("%s %s %.100s\n  %s", version, c, c.body, strings.Join(bad, "\n  "))
}

// alwaysAllowed is what is meant whatever the request.
var alwaysAllowed = []difference{
	{"", "status: docker 500, berth 400", "a request that makes no sense is no defect of the engine; later dockers say 400, too"},
	{"", "status: docker 500, berth 503", "a registry that does not answer is no defect of the engine"},
	{"", "status: docker 500, berth 404", "what is not there is no defect of the engine"},
}

func (b *beside) meant(c call, d string) bool {
	for _, a := range alwaysAllowed {
		if strings.Contains(d, a.says) {
			return true
		}
	}
	for i, a := range b.allowed {
		if strings.HasPrefix(c.String(), a.request) && strings.Contains(d, a.says) {
			b.used[i] = true
			return true
		}
	}
	return false
}

// checkAllowed reports allowances that nothing needs: the list is a promise
// about what differs.
func (b *beside) checkAllowed() {
	b.t.Helper()
	for i, a := range b.allowed {
		if !b.used[i] && everything() {
			b.t.Errorf("nothing differs any more: %q %q", a.request, a.says)
		}
	}
}

// differences compares two answers as a client reads them.
func differences(both [2]answer, values []string) []string {
	docker, ours := both[0], both[1]
	if docker.status != ours.status {
		return []string{fmt.Sprintf("status: docker %d, berth %d", docker.status, ours.status)}
	}
	var out []string
	if d, o := mediaType(docker), mediaType(ours); d != o {
		out = append(out, fmt.Sprintf("content type: docker %q, berth %q", d, o))
	}
	for name := range docker.header {
		if _, ok := ours.header[name]; !ok && name != "Content-Length" && name != "Content-Type" {
			out = append(out, "header: docker has "+name)
		}
	}
	d, derr := shapeOf(docker.body)
	o, oerr := shapeOf(ours.body)
	if derr != nil || oerr != nil {
		if (derr == nil) != (oerr == nil) {
			out = append(out, fmt.Sprintf("body: docker %v, berth %v", derr, oerr))
		}
		return out
	}
	out = append(out, d.against(o)...)
	for _, path := range values {
		slices.Sort(d.text[path])
		slices.Sort(o.text[path])
		if !slices.Equal(d.text[path], o.text[path]) {
			out = append(out, fmt.Sprintf("value of %s: docker %q, berth %q", path, d.text[path], o.text[path]))
		}
	}
	return out
}

func mediaType(a answer) string {
	t, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	return t
}

// shape is what a JSON document, or a stream of them, looks like: the types found
// at each path. A list's items, and a stream's documents, count as one.
type shape struct {
	types map[string][]string
	text  map[string][]string // scalars
}

// openMaps are members whose keys are data.
var openMaps = []string{"Labels", "Options", "Data", "Volumes", "Networks", "Runtimes", "IndexConfigs", "Attributes", "Details", "Sysctls", "Ports", "ExposedPorts", "Annotations"}

func shapeOf(body []byte) (shape, error) {
	s := shape{map[string][]string{}, map[string][]string{}}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	for n := 0; ; n++ {
		var v any
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF) && n > 0:
			return s, nil
		case errors.Is(err, io.EOF):
			return s, errors.New("is empty")
		case err != nil:
			return s, errors.New("is not JSON")
		}
		s.add("", v)
	}
}

func (s shape) add(path string, v any) {
	kind := ""
	switch v := v.(type) {
	case nil:
		kind = "null"
	case map[string]any:
		kind = "object"
		open := slices.Contains(openMaps, path[strings.LastIndexByte(path, '.')+1:])
		for name, member := range v {
			if open {
				name = "*"
			}
			s.add(path+"."+name, member)
		}
	case []any:
		kind = "list"
		for _, item := range v {
			s.add(path+"[]", item)
		}
	case bool:
		kind = "bool"
	case json.Number:
		kind = "number"
	case string:
		kind = "string"
	}
	if !slices.Contains(s.types[path], kind) {
		s.types[path] = append(s.types[path], kind)
		slices.Sort(s.types[path])
	}
	if kind != "object" && kind != "list" {
		s.text[path] = append(s.text[path], fmt.Sprint(v))
	}
}

// against lists what is missing in, additional to and other than docker's shape.
// What is inside of something that is not there on one side is not looked at.
func (d shape) against(o shape) (out []string) {
	for path, kinds := range d.types {
		ours, ok := o.types[path]
		switch parent := path[:max(strings.LastIndexAny(path, ".["), 0)]; {
		case !ok && path != "" && (o.types[parent] == nil || strings.HasSuffix(path, "[]") || strings.HasSuffix(path, ".*")):
		case !ok:
			out = append(out, fmt.Sprintf("missing %s (%s)", path, strings.Join(kinds, "|")))
		case !slices.Equal(kinds, ours):
			out = append(out, fmt.Sprintf("type of %s: docker %s, berth %s", path, strings.Join(kinds, "|"), strings.Join(ours, "|")))
		}
	}
	for path, kinds := range o.types {
		parent := path[:max(strings.LastIndexAny(path, ".["), 0)]
		if _, ok := d.types[path]; !ok && d.types[parent] != nil && !strings.HasSuffix(path, "[]") && !strings.HasSuffix(path, ".*") {
			out = append(out, fmt.Sprintf("additional %s (%s)", path, strings.Join(kinds, "|")))
		}
	}
	slices.Sort(out)
	return out
}
