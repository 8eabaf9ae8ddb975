package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"berth/internal/wire"
)

func TestWhatAContextIs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://x.example/a.git#v1": "https://x.example/a.git#v1", "git@host:a/b.git": "git@host:a/b.git", "ssh://git@h/a": "ssh://git@h/a",
		"github.com/owner/repo": "https://github.com/owner/repo.git", "github.com/owner/repo#v1:dir": "https://github.com/owner/repo.git#v1:dir",
		"dir": "", "./a@b:c": "", "a/b@c:d": "", "a@b": "", "": "",
	} {
		if got, ok := remoteContext(in); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, ok, want)
		}
	}
	for in, want := range map[string]bool{"FROM x\n": false, "\x1f\x8b...": true, "BZh9": true, "\xfd7zXZ\x00": true, "\x28\xb5\x2f\xfd": true,
		strings.Repeat("\x00", 257) + "ustar" + strings.Repeat("\x00", 250): true, strings.Repeat("FROM x\n", 100): false} {
		if got := isArchive([]byte(in)); got != want {
			t.Errorf("%.20q: %v", in, got)
		}
	}
}

func TestWhereResultsGo(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]exporter{
		"out": {kind: "local", dest: "out"}, "-": {kind: "tar", dest: "-"}, "type=local,dest=a b": {kind: "local", dest: "a b"},
		"type=tar": {kind: "tar", dest: "-"}, "type=oci,dest=f": {kind: "archive", dest: "f"}, "type=docker": {kind: "image"},
		"type=docker,dest=f": {kind: "archive", dest: "f"}, "type=registry": {kind: "image", push: true},
		`type=image,"name=a,b",push=true`: {kind: "image", names: []string{"a", "b"}, push: true},
	} {
		if got, err := exporterOf(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"type=local", "type=x", "type=image,dest=x", "type=tar,colour=red", "a=b"} {
		if got, err := exporterOf(in); err == nil {
			t.Errorf("%q was read as %+v", in, got)
		}
	}
}

func requestOf(t *testing.T, args ...string) (*wire.BuildRequest, error) {
	t.Helper()
	cmd := &cobra.Command{}
	f := &buildFlags{set: cmd.Flags()}
	f.register(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	rq, err := f.request()
	if err != nil {
		return nil, err
	}
	places, err := (&app{err: io.Discard}).caches(f, rq)
	if err == nil {
		places.close()
	}
	return rq, err
}

func TestBuildFlags(t *testing.T) {
	t.Setenv("GIVEN", "from outside")
	t.Setenv("SOURCE_DATE_EPOCH", "")
	_ = os.Unsetenv("SOURCE_DATE_EPOCH")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	rq, err := requestOf(t, "--build-arg", "A=b=c", "--build-arg", "GIVEN", "--build-arg", "NOT_GIVEN", "--label", "l=m", "--label", "bare",
		"--secret", "id=file,src="+file, "--secret", "id=GIVEN", "--secret", "id=v,type=env,src=GIVEN", "--add-host", "h:1.2.3.4", "--add-host", "six=[::1]",
		"--no-cache-filter", "a,b", "--memory", "1m", "--cpus", "1.5", "--ulimit", "nofile=5:6", "--network", "host", "--cache-from", "type=registry,ref=x",
		"--cache-from", "y,z", "--cache-to", "type=inline,mode=max", "-t", "x", "--check",
		"--platform", "linux/amd64,linux/arm64", "--platform", "local", "--annotation", "index:a=b", "--provenance", "mode=min", "--sbom=false")
	if err != nil {
		t.Fatal(err)
	}
	want := &wire.BuildRequest{
		Tags: []string{"x"}, Args: map[string]string{"A": "b=c", "GIVEN": "from outside"}, Labels: map[string]string{"l": "m", "bare": ""},
		Secrets: map[string][]byte{"file": []byte("s3cret"), "GIVEN": []byte("from outside"), "v": []byte("from outside")},
		Hosts:   []string{"h:1.2.3.4", "six:::1"}, NoCacheOnly: []string{"a", "b"}, Network: "host", Allow: []string{"network.host"},
		Limits:    wire.BuildLimits{Memory: 1 << 20, CPUPeriod: 100000, CPUQuota: 150000, Ulimits: []wire.BuildUlimit{{Name: "nofile", Soft: 5, Hard: 6}}},
		CacheFrom: []wire.BuildCacheFrom{{Ref: "x"}, {Ref: "y", Here: true}, {Ref: "z", Here: true}}, InlineCache: true, Check: true,
		Platforms: []string{"linux/amd64", "linux/arm64", "local"}, Annotations: []string{"index:a=b"}, Attests: []string{"type=provenance,mode=min"},
	}
	if !reflect.DeepEqual(rq, want) {
		t.Errorf("got\n%+v\nwant\n%+v", rq, want)
	}
	for _, args := range [][]string{{"--secret", "id=x,src=/nonexistent"}, {"--secret", "id=x,env=NOT_GIVEN"}, {"--secret", "src=x"}, {"--secret", "id=x,type=y"},
		{"--add-host", "x"}, {"--label", "=x"}, {"--cpus", "1", "--cpu-quota", "5"}, {"--ulimit", "x"}, {"--call", "outline"},
		{"--cache-to", "type=local"}, {"--cache-from", "type=local"}, {"--cache-to", "type=registry"}, {"--cache-from", "type=registry"},
		{"--cache-to", "type=gha"}, {"--cache-from", "type=s3,bucket=x"}, {"--cache-to", "type=registry,ref=x,mode=most"}, {"--cache-to", "type=registry,ref=x,mounts=2"},
		{"--cache-to", "type=registry,ref=x,compression=zstd"}, {"--cache-to", "type=registry,ref=x,image-manifest=false"}, {"--cache-to", "type=registry,ref=x,colour=red"},
		{"--cache-to", "type=local,dest=/proc/x"}, {"--cache-to", "type=local,dest=/etc"}} {
		if rq, err := requestOf(t, args...); err == nil {
			t.Errorf("%q was read as %+v", args, rq)
		}
	}
}

// An engine that does not see the client's files is sent them.
func TestFilesAreSentToWhomeverDoesNotSeeThem(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	var first, second wire.BuildRequest
	var sent []byte
	e.more.HandleFunc("POST /berth/build", func(w http.ResponseWriter, r *http.Request) {
		in := json.NewDecoder(r.Body)
		if first.ContextDir == "" {
			_ = in.Decode(&first)
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"message":"another directory"}`)
			return
		}
		_ = in.Decode(&second)
		sent, _ = io.ReadAll(io.MultiReader(in.Buffered(), r.Body))
		_, _ = io.WriteString(w, `{"Kind":"result","Result":{"ID":"b","ImageID":"sha256:1234"}}`+"\n")
	})
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM x\n", "a.txt": "content", "b.log": "noise", ".dockerignore": "*.log\nDockerfile\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := e.berth("", "build", "-q", dir)
	if o.code != 0 || strings.TrimSpace(o.stdout) != "sha256:1234" {
		t.Fatalf("code %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	if len(first.Seen) != 1 || second.ContextDir != "" || !second.Archive || second.Dockerfile != "Dockerfile" {
		t.Errorf("asked first for %+v, then for %+v", first, second)
	}
	for text, want := range map[string]bool{"content": true, "FROM x": true, "*.log": true, "noise": false} {
		if strings.Contains(string(sent), text) != want {
			t.Errorf("the archive has %q: %v", text, !want)
		}
	}
}
