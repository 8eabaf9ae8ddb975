package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

// home makes a configuration directory the one in use.
func home(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"BERTH_CONFIG", "DOCKER_AUTH_CONFIG"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_CONFIG", dir)
	path := filepath.Join(dir, "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// helper puts a credential helper into PATH that keeps secrets as files.
func helper(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script := `#!/bin/sh
cd "` + dir + `" || exit 1
name() { tr -c 'a-zA-Z0-9\n' _; }
case "$1" in
get) f=$(name); [ -f "secret.$f" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "secret.$f";;
store) cat > new; f=$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' new | name); mv new "secret.$f";;
erase) f=$(name); [ -f "secret.$f" ] || { echo "credentials not found in native keychain"; exit 1; }; rm "secret.$f";;
list) echo '{"https://index.docker.io/v1/":"gordon"}';;
*) echo "what?"; exit 1;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, helperPrefix+name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func open(t *testing.T) *Config {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, key string) Auth {
	t.Helper()
	a, err := open(t).For(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFileRoundTrip(t *testing.T) {
	ctx := context.Background()
	path := home(t, `{"psFormat":"table {{.ID}}","auths":{"old.example":{"auth":"YTpi","note":"mine"}},"plugins":{"x":{"y":"1"}}}`)
	kept, err := open(t).Save(ctx, Auth{Username: "gordon", Password: "p:w<&>", ServerAddress: "registry.example:5000"})
	if err != nil || kept.Helper != "" || kept.File != path {
		t.Fatalf("%+v, %v", kept, err)
	}
	if a := get(t, "registry.example:5000"); a.Username != "gordon" || a.Password != "p:w<&>" || a.ServerAddress != "registry.example:5000" {
		t.Errorf("got %+v", a)
	}
	if a := get(t, "old.example"); a.Username != "a" || a.Password != "b" {
		t.Errorf("got %+v", a)
	}
	if _, err := open(t).Save(ctx, Auth{Username: "gordon", IdentityToken: "T", ServerAddress: "old.example"}); err != nil {
		t.Fatal(err)
	}
	if a := get(t, "old.example"); a.IdentityToken != "T" || a.Password != "" {
		t.Errorf("got %+v", a)
	}
	text, _ := os.ReadFile(path)
	for _, want := range []string{`"psFormat": "table {{.ID}}"`, `"note": "mine"`, `"y": "1"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lost %s in\n%s", want, text)
		}
	}
	info, _ := os.Stat(path)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if known, err := open(t).Erase(ctx, "old.example"); !known || err != nil {
		t.Errorf("%v %v", known, err)
	}
	if known, err := open(t).Erase(ctx, "old.example"); known || err != nil {
		t.Errorf("second time: %v %v", known, err)
	}
	if a := get(t, "old.example"); !a.Empty() {
		t.Errorf("got %+v", a)
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestNamesOfRegistries(t *testing.T) {
	home(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOng="},"https://quay.io/v2/":{"auth":"cXVheTp4"},"http://localhost:5000":{"auth":"bG9jYWw6eA=="}}}`)
	for ref, user := range map[string]string{"alpine": "hub", "team/app:1": "hub", "docker.io/x/y": "hub", "quay.io/a/b": "quay",
		"localhost:5000/x": "local", "localhost/x": "", "other.example/quay.io/x": ""} {
		if a := get(t, KeyOf(ref)); a.Username != user {
			t.Errorf("%s: got %q", ref, a.Username)
		}
	}
	for name, key := range map[string]string{"": hubKey, "docker.io": hubKey, "https://index.docker.io/v1/": hubKey,
		"https://r.example/v2/": "r.example", "r.example:5000": "r.example:5000"} {
		if got := Key(name); got != key {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestHelpers(t *testing.T) {
	ctx := context.Background()
	path := home(t, `{"credsStore":"files","credHelpers":{"plain.example":"files"}}`)
	dir := helper(t, "files")
	kept, err := open(t).Save(ctx, Auth{Username: "gordon", Password: "secret", ServerAddress: hubKey})
	if err != nil || kept.Helper != "files" {
		t.Fatalf("%+v, %v", kept, err)
	}
	if text, _ := os.ReadFile(path); strings.Contains(string(text), "secret") || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte("gordon:"))[:8]) ||
		!strings.Contains(string(text), hubKey) {
		t.Errorf("got %s", text)
	}
	if a := get(t, hubKey); a.Username != "gordon" || a.Password != "secret" {
		t.Errorf("got %+v", a)
	}
	if _, err := open(t).Save(ctx, Auth{Username: "gordon", IdentityToken: "T", ServerAddress: "plain.example"}); err != nil {
		t.Fatal(err)
	}
	if a := get(t, "plain.example"); a.IdentityToken != "T" || a.Username != "" {
		t.Errorf("got %+v", a)
	}
	all, err := open(t).All(ctx)
	if err != nil || len(all) != 2 || all[hubKey].Password != "secret" {
		t.Errorf("got %+v, %v", all, err)
	}
	if known, err := open(t).Erase(ctx, hubKey); !known || err != nil {
		t.Errorf("%v %v", known, err)
	}
	if known, err := open(t).Erase(ctx, hubKey); known || err != nil {
		t.Errorf("second time: %v %v", known, err)
	}
	if a := get(t, "unknown.example"); !a.Empty() {
		t.Errorf("got %+v", a)
	}
	if err := os.WriteFile(filepath.Join(dir, helperPrefix+"files"), []byte("#!/bin/sh\necho 'the keychain is locked'; exit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t).For(ctx, hubKey); err == nil || !strings.Contains(err.Error(), "the keychain is locked") {
		t.Errorf("got %v", err)
	}
}

func TestHelpersThatMisbehave(t *testing.T) {
	for text, says := range map[string]string{`{"credsStore":"no-such-helper"}`: "not in PATH", `{"credsStore":"../../evil"}`: "no name"} {
		home(t, text)
		if _, err := open(t).For(context.Background(), hubKey); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	home(t, `{"credsStore":"odd"}`)
	dir := helper(t, "odd")
	for script, says := range map[string]string{"echo hello": "not JSON", "cat /dev/zero": "credential helper"} {
		if err := os.WriteFile(filepath.Join(dir, helperPrefix+"odd"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t).For(context.Background(), hubKey); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", script, err)
		}
	}
}

func TestBadFilesAreNeverReplaced(t *testing.T) {
	for _, text := range []string{"{", `{"auths":[]}`, "[]"} {
		path := home(t, text)
		if _, err := Open(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	home(t, `{"auths":{"r.example":{"auth":"!"},"s.example":7,"t.example":{"auth":"bm9jb2xvbg=="}}}`)
	for _, key := range []string{"r.example", "s.example", "t.example"} {
		_, err := open(t).For(context.Background(), key)
		if err == nil || !strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "nocolon") {
			t.Errorf("%s: got %v", key, err)
		}
	}
	home(t, "null")
	if _, err := open(t).Save(context.Background(), Auth{Username: "a", ServerAddress: "b.example"}); err != nil {
		t.Error(err)
	}
}

func TestSymlinkedFileStaysOne(t *testing.T) {
	path := home(t, "")
	real := filepath.Join(t.TempDir(), "dotfile.json")
	if err := os.WriteFile(real, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t).Save(context.Background(), Auth{Username: "a", Password: "b", ServerAddress: "r.example"}); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(path); err != nil || target != real {
		t.Errorf("%s %v", target, err)
	}
	if text, _ := os.ReadFile(real); !strings.Contains(string(text), "r.example") {
		t.Errorf("got %s", text)
	}
}

func TestLoginsAtOnceBothStay(t *testing.T) {
	home(t, "")
	var group sync.WaitGroup
	names := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}
	for _, name := range names {
		c := open(t)
		group.Go(func() {
			if _, err := c.Save(context.Background(), Auth{Username: "u", Password: "p", ServerAddress: name}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, name := range names {
		if get(t, name).Username != "u" {
			t.Errorf("%s was lost", name)
		}
	}
}

func TestEnvironmentGoesFirst(t *testing.T) {
	home(t, `{"auths":{"r.example":{"auth":"YTpi"}}}`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"r.example":{"auth":"Y2k6dG9rZW4="}}}`)
	if a := get(t, "r.example"); a.Username != "ci" || a.Password != "token" {
		t.Errorf("got %+v", a)
	}
	t.Setenv("DOCKER_AUTH_CONFIG", `secret`)
	if _, err := Open(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestHeaderIsWhatTheAPIReads(t *testing.T) {
	a := Auth{Username: "u", Password: "p", ServerAddress: "r.example", IdentityToken: "t", RegistryToken: "r", Auth: "x"}
	raw, err := base64.URLEncoding.DecodeString(a.Header())
	if err != nil {
		t.Fatal(err)
	}
	var got registry.AuthConfig
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got != (registry.AuthConfig{Username: "u", Password: "p", ServerAddress: "r.example", IdentityToken: "t", RegistryToken: "r"}) {
		t.Errorf("got %+v", got)
	}
	if (Auth{ServerAddress: "x"}).Header() != "" {
		t.Error("nothing known must send nothing")
	}
}
