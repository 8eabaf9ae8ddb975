package signature

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/signature/cosign"
)

func TestFirstRuleThatMatchesWins(t *testing.T) {
	t.Parallel()
	p := policy(t, `
default = "deny"
[[rule]]
name = "bad tool"
repository = "docker.io/evil/*"
action = "deny"
[[rule]]
name = "hub"
repository = ["docker.io/**", "quay.io/team/**"]
action = "allow"
[[rule]]
name = "any web"
repository = "**/web-*"
action = "allow"
`, nil)
	for name, says := range map[string]string{
		"alpine": "", "quay.io/team/a/b/c": "", "evil/miner": `"bad tool"`, "Docker.io/evil/miner": `"bad tool"`,
		"registry-1.docker.io/evil/miner": `"bad tool"`, "index.docker.io/evil/miner": `"bad tool"`,
		"docker.io:443/evil/miner": `"bad tool"`, "quay.io/other/x": "default is to deny", "r.example/a/web-1": "",
		"r.example/a/web": "no rule",
	} {
		err := p.Check(context.Background(), named(t, name), imageDigest("x"), newStore())
		if says == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if says != "" {
			refused(t, err, says)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"r.example/team/*", "r.example/team/app", true}, {"r.example/team/*", "r.example/team/app/x", false},
		{"r.example/team/**", "r.example/team/app/x", true}, {"r.example/**", "r.example/a", true},
		{"R.Example/team/*", "r.example/team/app", true}, {"r.example:443/a", "r.example/a", true},
		{"r.example:5000/a", "r.example/a", false}, {"**", "x.y/z", true}, {"*.example/a", "r.example/a", true},
		{"**/a/**/b", "r.x/a/1/2/b", true}, {"**/a/**/b", "r.x/a/1/2/c", false}, {"r.example/a", "r.example.evil/a", false},
		{"[::1]:5000/*", "[::1]:5000/a", true}, {"r.example/te*m/app", "r.example/team/app", true},
		{strings.Repeat("**/", 20) + "x", "r.example/" + strings.Repeat("a/", 100) + "y", false},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.matches(c.name); got != c.want {
			t.Errorf("%s %s: got %v", c.pattern, c.name, got)
		}
	}
}

func TestBadPoliciesAreRefusedByName(t *testing.T) {
	t.Parallel()
	k := key(t, cosign.KindP256)
	secret, err := k.Encrypt([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{"a.pub": public(t, k), "a.key": secret, "junk": []byte("junk"),
		"two.pub": append(public(t, k), []byte("trailing")...)}
	rule := func(lines string) string { return "[[rule]]\nname = \"r\"\nrepository = \"**\"\n" + lines }
	for text, says := range map[string]string{
		"x = 1":                   `"x"`,
		"default = \"maybe\"":     "maybe",
		rule(`action = "sign"`):   `"sign"`,
		rule(`action = "signed"`): "names no keys",
		rule("action = \"signed\"\nkeys = [\"none\"]"):                                     "none",
		rule("action = \"signed\"\nkeys = [\"junk\"]"):                                     "junk",
		rule("action = \"signed\"\nkeys = [\"two.pub\"]"):                                  "two.pub",
		rule("action = \"signed\"\nkeys = [\"a.key\"]"):                                    "private key",
		rule("action = \"signed\"\nkeys = [\"a.pub\"]\nthreshold = 2"):                     "threshold",
		rule("action = \"signed\"\nkeys = [\"a.pub\"]\nthreshold = 0"):                     "threshold",
		rule("action = \"signed\"\nkeys = [\"a.pub\"]\nidentity = \"r.example/a:1\""):      "identity",
		rule("action = \"signed\"\n[rule.keyless]\nissuer = \"https://accounts.example\""): "keyless",
		rule("action = \"allow\"\nkeys = [\"a.pub\"]"):                                     "no meaning",
		rule("action = \"allow\"") + "\n" + rule("action = \"deny\""):                      "same name",
		"[[rule]]\nname = \"r\"\naction = \"deny\"":                                        "names no repository",
		"[[rule]]\nrepository = \"**\"\naction = \"deny\"":                                 "no name",
		"[[rule]]\nname = \"r\"\nrepository = \"alpine\"\naction = \"deny\"":               "docker.io/library/alpine",
		"[[rule]]\nname = \"r\"\nrepository = \"r.example/a:1\"\naction = \"deny\"":        "tags",
		"[[rule]]\nname = \"r\"\nrepository = \"r.example/a**\"\naction = \"deny\"":        "stand alone",
		"[[rule]]\nname = \"r\"\nrepository = 7\naction = \"deny\"":                        "7",
		"[[rule]": "line",
	} {
		_, err := parsePolicy("policy.toml", text, keyFiles(keys))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "policy.toml") {
			t.Errorf("%s\ngot %v, want something about %s", text, err, says)
		}
	}
}

func TestLoadPolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := key(t, cosign.KindP256)
	for name, text := range map[string]string{"policy.toml": wantsOne, "a.pub": string(public(t, k))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadPolicy(filepath.Join(dir, "policy.toml")); err != nil {
		t.Error(err)
	}
	if _, err := LoadPolicy(filepath.Join(dir, "none.toml")); err == nil || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("got %v", err)
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(wantsOne)
	f.Add("default = \"deny\"\n[[rule]]\nname=\"x\"\nrepository=[\"**/a\",\"*.b/*\"]\naction=\"allow\"")
	pub := public(f, key(f, cosign.KindP256))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePolicy("p", text, func(string) ([]byte, error) { return pub, nil })
		if err != nil {
			return
		}
		for _, name := range []string{"alpine", "registry.example/team/app"} {
			_ = p.Check(context.Background(), named(t, name), imageDigest("x"), newStore())
		}
	})
}

// FuzzSignature throws hostile manifests and blobs at a check that nothing but
// the key's holder can satisfy.
func FuzzSignature(f *testing.F) {
	k := sameKey(f) // every process that fuzzes must have the one that signed the seeds
	d := imageDigest("app")
	a := signed(f, k, "registry.example/team/app", imageDigest("other"))
	f.Add(a.Manifest, a.Blobs[1])
	s := newStore()
	s.bundle(f, k, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"00"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`)
	for _, m := range s.manifests {
		for _, b := range s.blobs {
			f.Add(m, b)
		}
	}
	p, err := WithKeys(public(f, k))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, manifest, blob []byte) {
		s := newStore()
		s.manifests[cosign.Tag(d.String())] = manifest
		s.keep(blob, a.Blobs[1])
		if err := p.Check(context.Background(), named(t, "registry.example/team/app"), d, s); err == nil {
			t.Error("passed")
		}
		_, _ = cosign.ParsePayload(blob)
		_, _ = cosign.ParseBundle(blob)
		_, _ = cosign.Merge(manifest, a)
	})
}
