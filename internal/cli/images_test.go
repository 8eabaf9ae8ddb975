package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/signature/cosign"
)

// refuse answers with an error as engines do.
func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// answers makes the engine answer a pattern with a fixed body.
func (e *fakeEngine) answers(pattern, body string) {
	e.more.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// line is a command line and what is to come of it.
type line struct {
	name           string
	args           []string
	code           int
	stdout, stderr string // stderr: a part
}

// table runs command lines and compares what they print.
func (e *fakeEngine) table(t *testing.T, lines []line) {
	t.Helper()
	for _, c := range lines {
		t.Run(c.name, func(t *testing.T) {
			o := e.berth("", c.args...)
			if o.code != c.code || o.stdout != c.stdout || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("berth %q:\ngot code %d, stdout\n%s\nstderr %q\nwant code %d, stdout\n%s\nstderr with %q",
					c.args, o.code, o.stdout, o.stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
}

// dockerHome makes an empty configuration directory the one in use.
func dockerHome(t *testing.T, text string) (path string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("BERTH_CONFIG", "")
	t.Setenv("DOCKER_AUTH_CONFIG", "")
	t.Setenv("DOCKER_CONFIG", dir)
	path = filepath.Join(dir, "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestImageCommands(t *testing.T) {
	dockerHome(t, "")
	e := newFakeEngine(t)
	e.answers("GET /images/app/history", `[
{"Id":"sha256:0123456789abcdef","Created":1,"CreatedBy":"CMD [\"/bin/sh\"] a very long command that does not fit","Size":0,"Comment":"buildkit","Tags":["app:1"]},
{"Id":"<missing>","Created":1,"CreatedBy":"ADD\tfile","Size":7800000,"Comment":""}]`)
	e.answers("GET /images/search", `[{"name":"nginx","description":"a\nserver","star_count":7,"is_official":true}]`)
	e.answers("POST /images/team/app/push", `{"status":"The push refers to repository [docker.io/team/app]"}
{"status":"Preparing","id":"0123456789ab"}{"status":"Pushing","id":"0123456789ab","progressDetail":{"current":5,"total":10}}
{"status":"Pushed","id":"0123456789ab"}{"status":"1: digest: sha256:abc size: 5"}{"aux":{"Tag":"1"}}`)
	e.answers("POST /images/locked/push", `{"errorDetail":{"message":"denied: requested access to the resource is denied"}}`)
	e.answers("POST /commit", `{"Id":"sha256:abc"}`)
	e.answers("GET /berth/images/tree", `{"Roots":[{"DiffID":"sha256:aaaaaaaaaaaaaaaa","Size":7800000,"Images":2,"Tops":[{"ID":"sha256:cccccccccccccccc","RepoTags":["base:1"],"Size":7800000}],
"Above":[{"DiffID":"sha256:bb","Size":100,"Images":1,"Above":[{"DiffID":"sha256:bc","Size":100,"Images":1,"Tops":[{"ID":"sha256:dddddddddddddddd","Size":7800200,"Platform":"linux/amd64"}]}]}]}],"Empty":[{"ID":"sha256:eeeeeeeeeeeeeeee","RepoTags":["none:1"]}]}`)
	t.Setenv("LC_ALL", "C.UTF-8")
	e.table(t, []line{
		{"history", []string{"history", "--format", "{{.ID}} {{.Size}} {{.CreatedBy}}|{{.Comment}}", "app"}, 0,
			"0123456789ab 0B CMD [\"/bin/sh\"] a very long command that doe…|buildkit\n<missing> 7.8MB ADD file|\n", ""},
		{"history, whole", []string{"image", "history", "-H=false", "--no-trunc", "--format", "{{.ID}} {{.Size}}", "app"}, 0,
			"sha256:0123456789abcdef 0\n<missing> 7800000\n", ""},
		{"history, ids", []string{"history", "-q", "app"}, 0, "0123456789ab\n<missing>\n", ""},
		{"search", []string{"search", "nginx"}, 0, "NAME    DESCRIPTION   STARS   OFFICIAL\nnginx   a server      7       [OK]\n", ""},
		{"push", []string{"push", "team/app:1"}, 0, "The push refers to repository [docker.io/team/app]\n0123456789ab: Preparing\n" +
			"0123456789ab: Pushed\n1: digest: sha256:abc size: 5\n", ""},
		{"push, quiet", []string{"push", "-q", "team/app"}, 0, "docker.io/team/app:latest\n", ""},
		{"push of all tags and one", []string{"push", "-a", "team/app:1"}, 1, "", "contradict"},
		{"push without rights", []string{"push", "locked"}, 1, "Using default tag: latest\n", "log in first: berth login\n"},
		{"commit", []string{"commit", "-c", "CMD x", "-c", "ENV a=b", "-a", "me", "-m", "why", "-p=false", "web", "app:2"}, 0, "sha256:abc\n", ""},
		{"tree", []string{"image", "tree"}, 0, "aaaaaaaaaaaa  7.8MB, shared by 2 images\n├─ base:1  cccccccccccc  7.8MB\n" +
			"└─ bb and 1 more layer  200B\n   └─ <none>  dddddddddddd  7.8MB  linux/amd64\nnone:1  eeeeeeeeeeee  0B, no layers\n", ""},
		{"all platforms and one", []string{"pull", "--all-platforms", "--platform", "linux/arm64", "x"}, 1, "", "contradict"},
		{"all platforms", []string{"pull", "-q", "--all-platforms", "x"}, 0, "docker.io/library/x:latest\n", ""},
		{"all tags", []string{"pull", "-q", "-a", "localhost:5000/x"}, 0, "localhost:5000/x\n", ""},
		{"sign without a key", []string{"image", "sign", "app"}, 1, "", "keygen"},
		{"a member that is mistyped", []string{"image", "verfy"}, 1, "", "did you mean 'berth image verify'?"},
	})
	q := e.recorded("POST", "/commit")[0].query
	if q.Get("container") != "web" || q.Get("repo") != "app" || q.Get("tag") != "2" || q.Get("pause") != "0" || len(q["changes"]) != 2 ||
		q.Get("author") != "me" || q.Get("comment") != "why" {
		t.Errorf("commit asked %v", q)
	}
	pulls := e.recorded("POST", "/images/create")
	if q := pulls[0].query; q.Get("allPlatforms") != "1" || q.Get("tag") != "latest" {
		t.Errorf("pull asked %v", q)
	}
	if q := pulls[1].query; q.Get("all") != "1" || q.Has("tag") {
		t.Errorf("pull -a asked %v", q)
	}
}

func TestSave(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.more.HandleFunc("GET /images/get", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("names") == "missing" {
			refuse(w, 404, "No such image: missing")
			return
		}
		if r.URL.Query().Get("names") == "broken" {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "12345")
			return
		}
		fmt.Fprint(w, "archive of ", strings.Join(r.URL.Query()["names"], " "), r.URL.Query()["platform"])
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	e.table(t, []line{
		{"to a file", []string{"save", "-o", file, "--platform", "linux/arm64/v8", "a", "b"}, 0, "", ""},
		{"to standard output", []string{"save", "a"}, 0, "archive of a[]", ""},
		{"nothing there", []string{"save", "-o", file, "missing"}, 1, "", "No such image: missing"},
		{"cut short", []string{"save", "-o", file, "broken"}, 1, "", "broke"},
		{"into a directory", []string{"save", "-o", dir, "a"}, 1, "", "is a directory"},
		{"into nowhere", []string{"save", "-o", filepath.Join(dir, "none", "a.tar"), "a"}, 1, "", "none"},
		{"to a device", []string{"save", "-o", "/dev/null", "a"}, 0, "", ""},
		{"a bad platform", []string{"save", "--platform", "arm64", "a"}, 1, "", "linux/arm64"},
	})
	if text, err := os.ReadFile(file); err != nil || string(text) != `archive of a b[{"os":"linux","architecture":"arm64","variant":"v8"}]` {
		t.Errorf("got %q, %v: a save that fails must leave the file alone", text, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	y := newTTY(t)
	if code := <-y.berth(e, "save", "a"); code != 1 {
		t.Errorf("save to a terminal: code %d", code)
	}
	y.screen.await(t, "written to the terminal")
}

func authOf(t *testing.T, header string) map[string]string {
	t.Helper()
	raw, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLogin(t *testing.T) {
	path := dockerHome(t, "")
	e := newFakeEngine(t)
	e.more.HandleFunc("POST /auth", func(w http.ResponseWriter, r *http.Request) {
		var in map[string]string
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch {
		case in["password"] == "right":
			_, _ = io.WriteString(w, `{"Status":"Login Succeeded"}`)
		case in["password"] == "swap":
			_, _ = io.WriteString(w, `{"Status":"Login Succeeded","IdentityToken":"T"}`)
		default:
			refuse(w, 401, "unauthorized: incorrect username or password")
		}
	})
	if o := e.berth("right\n", "login", "-u", "gordon", "--password-stdin", "registry.example"); o.code != 0 ||
		o.stdout != "Login Succeeded\n" || !strings.Contains(o.stderr, "unencrypted in '"+path+"'") {
		t.Fatalf("%+v", o)
	}
	if o := e.berth("", "push", "registry.example/a:1"); o.code == 0 { // answered 404
		t.Errorf("%+v", o)
	}
	if got := authOf(t, e.recorded("POST", "/push")[0].auth); got["username"] != "gordon" || got["password"] != "right" || got["serveraddress"] != "registry.example" {
		t.Errorf("push sent %v", got)
	}
	e.berth("", "pull", "-q", "other.example/a")
	if got := e.recorded("POST", "/images/create")[0].auth; got != "" {
		t.Errorf("another registry was told %v", authOf(t, got))
	}
	e.table(t, []line{
		{"again, without words", []string{"login", "https://registry.example/v2/"}, 0, "Authenticating with existing credentials [Username: gordon]\nLogin Succeeded\n", ""},
		{"wrong password", []string{"login", "-u", "gordon", "-p", "wrong"}, 1, "", "incorrect username or password"},
		{"password on the command line", []string{"login", "-u", "gordon", "-p", "swap"}, 0, "Login Succeeded\n", "--password-stdin"},
		{"no terminal to ask on", []string{"login", "third.example"}, 1, "", "--password-stdin"},
		{"password without a name", []string{"login", "--password-stdin"}, 1, "", "needs --username"},
		{"empty password", []string{"login", "-u", "a", "--password-stdin"}, 1, "", "empty"},
		{"logout", []string{"logout", "registry.example"}, 0, "Removing login credentials for registry.example\n", ""},
		{"logout twice", []string{"logout", "registry.example"}, 0, "Not logged in to registry.example\n", ""},
	})
	text, _ := os.ReadFile(path)
	if strings.Contains(string(text), "registry.example") || !strings.Contains(string(text), `"identitytoken": "T"`) || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte("gordon:swap"))) {
		t.Errorf("kept\n%s", text)
	}
	y := newTTY(t)
	ended := y.berth(e, "login", "asked.example")
	y.screen.await(t, "Username: ")
	y.types("anna\n")
	y.screen.await(t, "Password: ")
	y.types("right\n")
	if code := <-ended; code != 0 || strings.Contains(y.screen.String(), "right") {
		t.Errorf("code %d, screen %q", code, y.screen.String())
	}
}

func TestBrokenCredentialsDoNotStopPulls(t *testing.T) {
	dockerHome(t, `{"credsStore":"no-such-helper"}`)
	e := newFakeEngine(t)
	e.table(t, []line{
		{"pull", []string{"pull", "-q", "a/b"}, 0, "docker.io/a/b:latest\n", "anonymously"},
		{"push", []string{"push", "a/b"}, 1, "", "docker-credential-no-such-helper"},
	})
}

func TestSignAndVerify(t *testing.T) {
	dockerHome(t, "")
	t.Setenv("BERTH_KEY_PASSWORD", "secret")
	e, dir := newFakeEngine(t), t.TempDir()
	prefix := filepath.Join(dir, "team")
	digest := "sha256:" + strings.Repeat("ab", 32)
	e.answers("GET /distribution/registry.example/team/app:1/json", `{"Descriptor":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+digest+`","size":7}}`)
	e.answers("POST /berth/images/registry.example/team/app@"+digest+"/attach", "")
	e.answers("POST /berth/images/good/verify", `{"status":"Verified","id":"0123456789ab"}{"status":"Signed","id":"signature"}`)
	e.answers("POST /berth/images/old/verify", `{"status":"Verified","id":"0123456789ab"}`)
	e.answers("POST /berth/images/bad/verify", `{"errorDetail":{"message":"layer 0123: etc/passwd differs"}}`)
	e.answers("GET /berth/images/app:latest/referrers", `[{"digest":"sha256:ab","artifactType":"x/y","size":5}]`)
	e.table(t, []line{
		{"keygen", []string{"image", "keygen", "-o", prefix}, 0, "", prefix + ".pub"},
		{"keygen twice", []string{"image", "keygen", "-o", prefix}, 1, "", "there already"},
		{"sign", []string{"image", "sign", "--key", prefix + ".key", "registry.example/team/app:1"}, 0, "registry.example/team/app@" + digest + "\n", ""},
		{"sign with a public key", []string{"image", "sign", "--key", prefix + ".pub", "registry.example/team/app:1"}, 1, "", "public key"},
		{"verify", []string{"image", "verify", "good"}, 0, "0123456789ab: Verified\nsignature: Signed\n", ""},
		{"verify with a key", []string{"image", "verify", "-q", "--key", prefix + ".pub", "good"}, 0, "good\n", ""},
		{"an engine that does not check", []string{"image", "verify", "-q", "--key", prefix + ".pub", "old"}, 1, "", "does not say that the signature was checked"},
		{"verify fails", []string{"image", "verify", "-q", "bad", "good"}, 1, "good\n", "bad: layer 0123: etc/passwd differs"},
		{"verify with a private key", []string{"image", "verify", "--key", prefix + ".key", "good"}, 1, "", "private key"},
		{"referrers", []string{"image", "referrers", "--format", "{{.Digest}} {{.ArtifactType}} {{.Size}}", "app"}, 0, "sha256:ab x/y 5B\n", ""},
	})
	info, err := os.Stat(prefix + ".key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	var sent struct {
		Manifest []byte
		Blobs    [][]byte
	}
	if err := json.Unmarshal(e.recorded("POST", "/attach")[0].body, &sent); err != nil {
		t.Fatal(err)
	}
	entries, err := cosign.ParseManifest(sent.Manifest)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
	public, _ := os.ReadFile(prefix + ".pub")
	keys, err := cosign.ParsePublicKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := cosign.ParsePayload(sent.Blobs[1])
	if err != nil || !keys[0].Verify(sent.Blobs[1], entries[0].Signature) || claim.Reference != "registry.example/team/app" || claim.Digest != digest {
		t.Errorf("%+v %v", claim, err)
	}
	if secret, _ := os.ReadFile(prefix + ".key"); strings.Contains(string(e.recorded("POST", "/attach")[0].body), string(secret[40:80])) {
		t.Error("the key left the machine")
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.answers("POST /images/prune", `{"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:01"}],"SpaceReclaimed":5000}`)
	plan := `{"Remove":[{"Kind":"image","ID":"sha256:0123456789abcdef","Size":5000,"Reason":"no name"}],` +
		`"Keep":[{"Kind":"image","ID":"sha256:aa","Names":["app:1"],"Size":1,"Reason":"used by web"}],"SpaceReclaimed":5000}`
	e.answers("POST /berth/plan", plan)
	e.table(t, []line{
		{"nobody said yes", []string{"image", "prune"}, 1, "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] \n", "nothing was removed"},
		{"forced", []string{"image", "prune", "-af"}, 0, "Deleted Images:\nuntagged: a:1\ndeleted: sha256:01\n\nTotal reclaimed space: 5kB\n", ""},
		{"explained", []string{"image", "prune", "--explain"}, 0, "Would remove:\nKIND    ID             NAME     SIZE   WHY\nimage   0123456789ab   <none>   5kB    no name\n\n" +
			"Would keep:\nKIND    ID   NAME    SIZE   WHY\nimage   aa   app:1   1B     used by web\n\nSpace that would come back: 5kB\n", ""},
		{"explained to programs", []string{"image", "prune", "--explain", "--format", "json"}, 0, plan + "\n", ""},
	})
	if q := string(e.recorded("POST", "/berth/plan")[0].body); q != `{"Prunes":[{"Kind":"image"}]}` {
		t.Errorf("planned %s", q)
	}
	if q := e.recorded("POST", "/images/prune")[0].query.Get("filters"); q != `{"dangling":{"false":true}}` {
		t.Errorf("asked %s", q)
	}
	if o := e.berth("y\n", "image", "prune"); o.code != 0 {
		t.Errorf("%+v", o)
	}
}
