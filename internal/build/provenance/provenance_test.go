package provenance

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

func example() *Build {
	return &Build{
		ID: "b1", Started: time.Unix(1, 0), Finished: time.Unix(2, 0), Machine: "linux/amd64", Platform: "linux/arm64",
		File: "Dockerfile", Text: []byte("FROM x"), Args: map[string]string{"build-arg:TOKEN": "hush", "label:l": "m", "target": "t"},
		Secrets: []Secret{{ID: "npm"}}, Materials: []Material{{"pkg:docker/x@1", map[string]string{"sha256": "aa"}}},
	}
}

// statement makes a statement and reads it back the way a policy would.
func statement(t *testing.T, b *Build, o Options) (doc []byte, get func(path string) any) {
	t.Helper()
	named, err := reference.ParseNormalizedNamed("registry.example/team/app:1.0")
	if err != nil {
		t.Fatal(err)
	}
	doc, kind, err := b.Statement(o, digest.FromString("manifest"), []reference.NamedTagged{named.(reference.NamedTagged)})
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(doc, &all); err != nil {
		t.Fatal(err)
	}
	if all["predicateType"] != kind {
		t.Errorf("the type is %v, said is %s", all["predicateType"], kind)
	}
	return doc, func(path string) any {
		var at any = all
		for step := range strings.SplitSeq(path, "|") {
			switch now := at.(type) {
			case map[string]any:
				at = now[step]
			case []any:
				at = now[0].(map[string]any)[step]
			}
		}
		return at
	}
}

func TestWhatAnImageWasMadeOf(t *testing.T) {
	for name, one := range map[string]struct {
		o    Options
		want map[string]any
	}{
		"v1": {Options{Builder: "https://b"}, map[string]any{
			"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
			"subject|name":          "pkg:docker/registry.example/team/app@1.0?platform=linux%2Farm64",
			"subject|digest|sha256": digest.FromString("manifest").Encoded(),
			"predicate|buildDefinition|externalParameters|configSource|path":            "Dockerfile",
			"predicate|buildDefinition|externalParameters|request|args|build-arg:TOKEN": "hush",
			"predicate|buildDefinition|externalParameters|request|secrets|id":           "npm",
			"predicate|buildDefinition|resolvedDependencies|digest|sha256":              "aa",
			"predicate|buildDefinition|internalParameters|targetPlatform":               "linux/arm64",
			"predicate|runDetails|builder|id":                                           "https://b",
			"predicate|runDetails|metadata|invocationId":                                "b1",
			"predicate|runDetails|metadata|startedOn":                                   "1970-01-01T00:00:01Z",
			"predicate|runDetails|metadata|buildkit_completeness|request":               true,
			"predicate|runDetails|metadata|buildkit_hermetic":                           true,
			"predicate|runDetails|metadata|buildkit_metadata|source|infos|data":         "RlJPTSB4",
			"predicate|runDetails|metadata|buildkit_completeness|resolvedDependencies":  true,
			"predicate|buildDefinition|externalParameters|request|frontend":             "dockerfile.v0",
		}},
		"v0.2": {Options{V02: true, Reproducible: true}, map[string]any{
			"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v0.2",
			"predicate|invocation|configSource|entryPoint": "Dockerfile", "predicate|materials|uri": "pkg:docker/x@1",
			"predicate|invocation|parameters|args|target": "t", "predicate|metadata|reproducible": true, "predicate|metadata|buildInvocationID": "b1",
		}},
	} {
		_, get := statement(t, example(), one.o)
		for path, want := range one.want {
			if got := get(path); got != want {
				t.Errorf("%s: %s is %v, want %v", name, path, got, want)
			}
		}
	}
}

// Little is told when little is asked for, and the statement says so.
func TestMinTellsNoValues(t *testing.T) {
	for _, v02 := range []bool{false, true} {
		doc, get := statement(t, example(), Options{Min: true, V02: v02})
		for _, secret := range []string{"hush", "npm", "TOKEN", "RlJPTSB4", "\"m\""} {
			if strings.Contains(string(doc), secret) {
				t.Errorf("it tells %q: %s", secret, doc)
			}
		}
		path := "predicate|runDetails|metadata|buildkit_completeness|request"
		if v02 {
			path = "predicate|metadata|completeness|parameters"
		}
		if get(path) != false {
			t.Error("it says that this is all")
		}
	}
	b := example()
	b.Locals, b.Network = []string{"context"}, true
	_, get := statement(t, b, Options{})
	if get("predicate|runDetails|metadata|buildkit_completeness|resolvedDependencies") != false || get("predicate|runDetails|metadata|buildkit_hermetic") != false {
		t.Error("what nobody can know is said to be known")
	}
}
