package test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// dialogue is a list of requests that several engines are asked in turn, a line
// each:
//
//	[name =] [UPGRADE] [Header: value;] METHOD PATH [BODY] [<< STDIN]
//	AWAIT PATH KEY VALUE
//
// A name takes the Id of the answer's body, and $name stands for it later. The
// path has no version. STDIN is sent on the connection after the request, which
// is then closed for writing. AWAIT asks until the value below KEY (as in
// State.Status) is VALUE.
type dialogue struct{ name, lines string }

// said is an answer and the line that asked for it.
type said struct {
	request string
	answer
}

// speaker is an engine in a dialogue.
type speaker struct {
	address string            // of its unix socket
	version string            // of the API
	own     map[string]string // names of what may not be the other's: a port, a subnet
	names   map[string]string
}

// talk has a dialogue with both engines, in the words of each version, and compares
// all that they answer: unlike compare every value, too.
func (b *beside) talk(d dialogue) (answers int) {
	b.t.Helper()
	for _, version := range versions() {
		var answered [2][]said
		var both sync.WaitGroup
		for side := range answered {
			both.Go(func() {
				own := []map[string]string{{"port": "18081", "subnet": "10.181.1"}, {"port": "18082", "subnet": "10.181.2"}}[side]
				s := &speaker{address: b.socketOf(side), version: version, own: own}
				var err error
				answered[side], err = s.hold(d)
				if err = errors.Join(err, s.clear()); err != nil {
					b.t.Errorf("%s %s, %s: %v", d.name, version, []string{"docker", "berth"}[side], err)
				}
			})
		}
		both.Wait()
		for i := range min(len(answered[0]), len(answered[1])) {
			b.values(d.name+" "+version, answered[0][i], answered[1][i])
		}
		answers += len(answered[1])
	}
	return answers
}

// values reports what differs between two answers.
func (b *beside) values(where string, docker, ours said) {
	b.t.Helper()
	// What is wrong with a request is no defect of the engine; later dockers agree.
	blamed := docker.status == http.StatusInternalServerError && ours.status/100 == 4
	want, have := docker.facts(), ours.facts()
	if docker.status != ours.status {
		// Then all is different. Who answers with an error says why.
		want = map[string]string{"status": want["status"] + fmt.Sprintf(" %.200s", docker.body)}
		have = map[string]string{"status": have["status"] + fmt.Sprintf(" %.200s", ours.body)}
	}
	var bad []string
	for _, fact := range slices.Sorted(maps.Keys(union(have, want))) {
		if have[fact] != want[fact] && (fact != "status" || !blamed) && !b.stays(ours.request, fact) {
			bad = append(bad, fmt.Sprintf("%s: docker %s, berth %s", fact, want[fact], have[fact]))
		}
	}
	if len(bad) > 8 {
		bad = append(bad[:8], fmt.Sprintf("and %d more", len(bad)-8))
	}
	if len(bad) > 0 {
		b.t.Errorf("%s: %s\n  %s", where, ours.request, strings.Join(bad, "\n  "))
	}
}

// stays is meant for differences whose requests and facts are patterns, in which *
// is anything.
func (b *beside) stays(request, fact string) bool {
	for i, d := range b.allowed {
		if like(d.request, request) && like(d.says, fact) {
			b.used[i] = true
			return true
		}
	}
	return false
}

func like(pattern, text string) bool {
	before, rest, more := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, before)
	if !ok || !more {
		return ok && text == ""
	}
	for ; !like(rest, text); text = text[1:] {
		if text == "" {
			return false
		}
	}
	return true
}

var (
	namedLine = regexp.MustCompile(`^(\w+) = `)
	headLine  = regexp.MustCompile(`^([A-Z][\w-]*): ([^;]*); `)
	variable  = regexp.MustCompile(`\$\w+`)
)

// patience bounds one answer; it only matters when an engine hangs.
const patience = 20 * time.Second

// hold has the dialogue with one engine.
func (s *speaker) hold(d dialogue) (all []said, err error) {
	s.names = maps.Clone(s.own)
	for line := range strings.Lines(d.lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		asked := line
		line = variable.ReplaceAllStringFunc(line, func(name string) string {
			if value, ok := s.names[name[1:]]; ok {
				return value
			}
			return name
		})
		if rest, ok := strings.CutPrefix(line, "AWAIT "); ok {
			if err := s.await(rest); err != nil {
				return all, fmt.Errorf("%s: %w", asked, err)
			}
			continue
		}
		name := ""
		if m := namedLine.FindStringSubmatch(line); m != nil {
			name, line = m[1], line[len(m[0]):]
		}
		a, err := s.ask(line)
		if err != nil {
			return all, fmt.Errorf("%s: %w", asked, err)
		}
		all = append(all, said{asked, a})
		if name != "" {
			var body struct{ ID string }
			_ = json.Unmarshal(a.body, &body)
			s.names[name] = body.ID
		}
	}
	return all, nil
}

// clear removes the containers that a dialogue left.
func (s *speaker) clear() error {
	a, err := s.ask("GET /containers/json?all=1")
	if err != nil {
		return err
	}
	var list []struct{ ID string }
	if err := json.Unmarshal(a.body, &list); err != nil {
		return err
	}
	for _, c := range list {
		if _, err := s.ask("DELETE /containers/" + c.ID + "?force=1&v=1"); err != nil {
			return err
		}
	}
	return nil
}

// ask makes one request on a connection of its own.
func (s *speaker) ask(line string) (a answer, err error) {
	line, upgrade := strings.CutPrefix(line, "UPGRADE ")
	header := http.Header{"Host": {"engine"}, "Content-Type": {"application/json"}, "Connection": {"close"}}
	if upgrade {
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", "tcp")
	}
	for m := headLine.FindStringSubmatch(line); m != nil; m = headLine.FindStringSubmatch(line) {
		header.Set(m[1], m[2])
		line = line[len(m[0]):]
	}
	line, stdin, talks := strings.Cut(line, " << ")
	stdin = strings.ReplaceAll(stdin, `\n`, "\n")
	method, rest, _ := strings.Cut(line, " ")
	path, body, _ := strings.Cut(rest, " ")
	if strings.HasPrefix(body, "tar:") {
		body = archiveOf(body[len("tar:"):])
	}
	header.Set("Content-Length", fmt.Sprint(len(body)))
	conn, err := net.Dial("unix", s.address)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s /v%s%s HTTP/1.1\r\n", method, s.version, path)
	_ = header.Write(&out)
	fmt.Fprintf(&out, "\r\n%s", body)
	if _, err := conn.Write(out.Bytes()); err != nil {
		return a, err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if talks {
		if _, err := io.WriteString(conn, stdin); err != nil {
			return a, err
		}
		_ = conn.(*net.UnixConn).CloseWrite()
	}
	from := io.Reader(resp.Body)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		from = in
	}
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(from)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // an answer that breaks off
		a.header.Set("Breaks-Off", "yes")
	}
	return a, err
}

// archiveOf makes an archive of "name=text name=text"; a name with a slash at its
// end is a directory.
func archiveOf(files string) string {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for file := range strings.FieldsSeq(files) {
		name, text, _ := strings.Cut(file, "=")
		header := &tar.Header{Name: name, Mode: 0o640, Size: int64(len(text)), Uid: 7, Gid: 8, ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		_ = w.WriteHeader(header)
		_, _ = io.WriteString(w, text)
	}
	_ = w.Close()
	return out.String()
}

// await asks until a value of the answer is the one that is wanted.
func (s *speaker) await(line string) error {
	f := strings.Fields(line)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		a, err := s.ask("GET " + f[0])
		if err != nil {
			return err
		}
		var doc any
		_ = json.Unmarshal(a.body, &doc)
		for key := range strings.SplitSeq(f[1], ".") {
			m, _ := doc.(map[string]any)
			doc = m[key]
		}
		if fmt.Sprint(doc) == f[2] {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still %v", doc)
		}
	}
}

// facts says of an answer all that can be compared, by name: the status, headers,
// and of a body in JSON every value by its path.
func (a said) facts() map[string]string {
	facts := map[string]string{"status": fmt.Sprint(a.status)}
	for _, name := range []string{"Content-Type", "Docker-Experimental", "Ostype", "X-Docker-Container-Path-Stat", "Breaks-Off", "Upgrade", "Connection", "Trailer"} {
		v := a.header.Get(name)
		if stat, err := base64.StdEncoding.DecodeString(v); name == "X-Docker-Container-Path-Stat" && err == nil {
			v = volatile(string(stat))
		}
		if v != "" {
			facts["header "+name] = v
		}
	}
	facts["header Api-Version"] = fmt.Sprint(a.header.Get("Api-Version") != "")
	kind := a.header.Get("Content-Type")
	counts := strings.Contains(a.request, "/stats?") || strings.Contains(a.request, "/top") // of which only kinds are the same
	switch {
	case a.status >= 400 && strings.HasPrefix(kind, "application/json"):
		var body map[string]any
		_ = json.Unmarshal(a.body, &body)
		for key, value := range body {
			facts["body "+key] = fmt.Sprintf("%T", value)
		}
	case strings.HasPrefix(kind, "application/json"):
		decoder := json.NewDecoder(bytes.NewReader(a.body))
		for n := 0; ; n++ {
			var doc any
			err := decoder.Decode(&doc)
			if counts {
				doc = kinds(doc)
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					facts["body"] = err.Error()
				}
				break
			}
			if n > 0 {
				flatten(fmt.Sprintf("body%d", n), doc, facts)
			} else {
				flatten("body", doc, facts)
			}
		}
	case kind == "application/x-tar" || kind == "application/octet-stream" && len(a.body) > 512:
		in := tar.NewReader(bytes.NewReader(a.body))
		for {
			e, err := in.Next()
			if err != nil {
				break
			}
			facts["file "+e.Name] = fmt.Sprintf("%c %04o %d:%d %d %s", e.Typeflag, e.Mode&0o7777, e.Uid, e.Gid, e.Size, e.Linkname)
		}
	default:
		facts["body"] = volatile(unframed(a.body))
	}
	return facts
}

// unframed is the content of docker's frames, by stream; what is none of that
// stays as it is.
func unframed(body []byte) string {
	var streams [3]strings.Builder
	for rest := body; len(rest) > 0; {
		if len(rest) < 8 || rest[0] > 2 || !bytes.Equal(rest[1:4], []byte{0, 0, 0}) {
			return string(body)
		}
		n := min(len(rest), 8+(int(rest[4])<<24|int(rest[5])<<16|int(rest[6])<<8|int(rest[7])))
		streams[rest[0]].Write(rest[8:n])
		rest = rest[n:]
	}
	if len(body) == 0 {
		return ""
	}
	return fmt.Sprintf("framed: stdout %q, stderr %q", streams[1].String(), streams[2].String())
}

// kinds replaces what a document has counted.
func kinds(doc any) any {
	switch v := doc.(type) {
	case float64:
		return "number"
	case string:
		return "text"
	case map[string]any:
		for key := range v {
			if key != "Titles" { // of columns
				v[key] = kinds(v[key])
			}
		}
	case []any:
		return []any{}
	}
	return doc
}

// flatten notes every value of a document; what differs from run to run is
// replaced by what it is.
func flatten(path string, doc any, facts map[string]string) {
	switch v := doc.(type) {
	case map[string]any:
		if len(v) == 0 {
			facts[path] = "{}"
		}
		for key, value := range v {
			flatten(path+"."+volatile(key), value, facts)
		}
	case []any:
		if len(v) == 0 {
			facts[path] = "[]"
		}
		slices.SortStableFunc(v, func(a, b any) int { return strings.Compare(place(a), place(b)) })
		if _, objects := slices.Concat(v, []any{nil})[0].(map[string]any); !objects {
			text, _ := json.Marshal(v)
			facts[path] = volatile(string(text))
			return
		}
		for i, value := range v {
			flatten(fmt.Sprintf("%s[%d]", path, i), value, facts)
		}
	default:
		text, _ := json.Marshal(v)
		facts[path] = volatile(string(text))
	}
}

// place is what objects are sorted by whose lists have no order: mounts, ports and
// changed files.
func place(v any) string {
	m, _ := v.(map[string]any)
	for _, key := range []string{"Destination", "PrivatePort", "Path"} {
		if m[key] != nil {
			return fmt.Sprint(m[key], m["Type"], m["PublicPort"])
		}
	}
	return ""
}

var volatiles = []struct {
	is   *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "ID12"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`(Up|Exited \(\d+\)) (Less than a second|About a minute|\d+ \w+)`), "$1 SOON"},
	{regexp.MustCompile(`\b1808[12]\b`), "PORT"},
	{regexp.MustCompile(`/(?:tmp|proc|sys)/[^"\s,:]*`), "PATH"},
	{regexp.MustCompile(`(?:[0-9a-f]{2}:){5}[0-9a-f]{2}`), "MAC"},
	{regexp.MustCompile(`172\.\d+\.\d+\.\d+|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+`), "ADDRESS"},
}

func volatile(text string) string {
	if strings.Contains(text, "0001-01-01T00:00:00Z") {
		return text
	}
	for _, v := range volatiles {
		text = v.is.ReplaceAllString(text, v.name)
	}
	return text
}
