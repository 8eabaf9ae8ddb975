package signature

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"berth/internal/fault"
	"berth/internal/signature/cosign"
)

const wantsOne = `
[[rule]]
name = "ours"
repository = "registry.example/team/*"
action = "signed"
keys = ["a.pub"]
`

func TestSignedImagesPassAndOthersAreRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range cosign.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k, d, ctx := key(t, kind), imageDigest("app"), context.Background()
			p := policy(t, wantsOne, map[string][]byte{"a.pub": public(t, k)})
			image := named(t, "registry.example/team/app:1")
			empty := newStore()
			refused(t, p.Check(ctx, image, d, empty), `"ours"`, "not signed", "berth image sign", "/etc/berth/policy.toml")
			byTag := newStore()
			byTag.tag(t, signed(t, k, "registry.example/team/app", d))
			if err := p.Check(ctx, image, d, byTag); err != nil {
				t.Errorf("by tag: %v", err)
			}
			byReferrer := newStore()
			byReferrer.refer(signed(t, k, "registry.example/team/app", d), cosign.ArtifactType)
			if err := p.Check(ctx, image, d, byReferrer); err != nil {
				t.Errorf("by referrer: %v", err)
			}
			if err := p.Check(ctx, named(t, "other.example/x"), d, empty); err != nil {
				t.Errorf("no rule names it: %v", err)
			}
		})
	}
	if err := (*Policy)(nil).Check(context.Background(), named(t, "x"), imageDigest("x"), newStore()); err != nil {
		t.Error(err)
	}
}

func TestForgedSignaturesDoNotCount(t *testing.T) {
	t.Parallel()
	ours, theirs := key(t, cosign.KindP256), key(t, cosign.KindP256)
	p := policy(t, wantsOne, map[string][]byte{"a.pub": public(t, ours)})
	d, repository := imageDigest("app"), "registry.example/team/app"
	payload, _ := cosign.Payload(repository, d.String())
	raw := func(payload []byte, signature string, change func(map[string]any)) func(*store) {
		return func(s *store) {
			layer := map[string]any{"mediaType": cosign.MediaTypePayload, "digest": cosign.Digest(payload), "size": len(payload),
				"annotations": map[string]string{"dev.cosignproject.cosign/signature": signature}}
			if change != nil {
				change(layer)
			}
			m, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": cosign.MediaTypeManifest, "layers": []any{layer}})
			s.manifests[cosign.Tag(d.String())] = m
			s.keep(payload)
		}
	}
	by := func(k *cosign.PrivateKey, payload string) func(*store) {
		sig, err := k.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return raw([]byte(payload), base64.StdEncoding.EncodeToString(sig), nil)
	}
	ok, _ := ours.Sign(payload)
	good := base64.StdEncoding.EncodeToString(ok)
	text := string(payload)
	for name, c := range map[string]struct {
		fill func(*store)
		says string
	}{
		"another key":          {by(theirs, text), "another key"},
		"another repository":   {func(s *store) { s.tag(t, signed(t, ours, "registry.example/team/dev", d)) }, `as "registry.example/team/dev"`},
		"another image":        {by(ours, strings.Replace(text, d.Encoded(), imageDigest("old").Encoded(), 1)), "another image"},
		"another tag":          {by(ours, strings.Replace(text, repository, repository+":2", 1)), "tag 1"},
		"empty":                {raw(payload, "", nil), "without a signature"},
		"not base64":           {raw(payload, "%%", nil), "base64"},
		"garbage":              {raw(payload, "AAAA", nil), "another key"},
		"another type":         {by(ours, strings.Replace(text, "cosign container image signature", "attestation", 1)), "type"},
		"more critical":        {by(ours, strings.Replace(text, `"type":`, `"expires":"never","type":`, 1)), "not understood"},
		"digest twice":         {by(ours, strings.Replace(text, `"type":`, `"image":{"docker-manifest-digest":"`+imageDigest("x").String()+`"},"type":`, 1)), "twice"},
		"critical in capitals": {by(ours, strings.Replace(text, `"critical"`, `"Critical"`, 1)), "no critical"},
		"two documents":        {by(ours, text+text), "follows"},
		"not JSON":             {by(ours, "hello"), "signed something else"},
		"huge":                 {raw(payload, good, func(l map[string]any) { l["size"] = int64(1) << 40 }), "more than"},
		"negative":             {raw(payload, good, func(l map[string]any) { l["size"] = -1 }), "more than"},
		"traversal":            {raw(payload, good, func(l map[string]any) { l["digest"] = "sha256:../../x" }), "malformed"},
		"wrong payload": {func(s *store) {
			raw(payload, good, nil)(s)
			for id := range s.blobs {
				s.blobs[id] = []byte("{}")
			}
		}, "does not have the digest"},
		"an index": {func(s *store) {
			s.manifests[cosign.Tag(d.String())] = []byte(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
		}, "carries none"},
		"old bundle": {raw(payload, good, func(l map[string]any) { l["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1" }), "not offered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore()
			c.fill(s)
			refused(t, p.Check(context.Background(), named(t, repository+":1"), d, s), `"ours"`, c.says)
		})
	}
}

func TestThresholdCountsDifferentKeys(t *testing.T) {
	t.Parallel()
	a, b := key(t, cosign.KindP256), key(t, cosign.KindEd25519)
	keys := map[string][]byte{"a.pub": public(t, a), "b.pub": public(t, b), "again.pub": public(t, a)}
	p := policy(t, `
[[rule]]
name = "two"
repository = "**"
action = "signed"
keys = ["a.pub", "b.pub", "again.pub"]
threshold = 2
`, keys)
	d, image, ctx := imageDigest("app"), named(t, "alpine"), context.Background()
	s := newStore()
	s.tag(t, signed(t, a, "docker.io/library/alpine", d))
	s.refer(signed(t, a, "docker.io/library/alpine", d), cosign.ArtifactType)
	refused(t, p.Check(ctx, image, d, s), "2 of 2 keys", "valid ones by 1 only")
	s.refer(signed(t, b, "index.docker.io/library/alpine", d), cosign.ArtifactType)
	if err := p.Check(ctx, image, d, s); err != nil {
		t.Error(err)
	}
	merged := newStore()
	merged.tag(t, signed(t, a, "alpine", d))
	merged.tag(t, signed(t, b, "alpine", d))
	if err := p.Check(ctx, image, d, merged); err != nil {
		t.Errorf("both under one tag: %v", err)
	}
}

func TestBundles(t *testing.T) {
	t.Parallel()
	k, d, ctx := key(t, cosign.KindP256), imageDigest("app"), context.Background()
	keys := map[string][]byte{"a.pub": public(t, k)}
	strict := policy(t, wantsOne, keys)
	loose := policy(t, wantsOne+"identity = \"any\"\n", keys)
	image := named(t, "registry.example/team/app")
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, d.Encoded())
	s := newStore()
	s.bundle(t, k, statement)
	if err := loose.Check(ctx, image, d, s); err != nil {
		t.Error(err)
	}
	refused(t, strict.Check(ctx, image, d, s), "without naming a repository", `identity = "any"`)
	for name, c := range map[string]struct{ statement, says string }{
		"attestation": {strings.Replace(statement, "https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document", 1), "says something about"},
		"other image": {strings.Replace(statement, d.Encoded(), imageDigest("old").Encoded(), 1), "another image"},
		"twice":       {strings.Replace(statement, `"_type"`, `"_type":"x","_type"`, 1), "twice"},
		"no subject":  {strings.Replace(statement, `"subject"`, `"subjects"`, 1), "subjects"},
	} {
		s := newStore()
		s.bundle(t, k, c.statement)
		t.Log(name)
		refused(t, loose.Check(ctx, image, d, s), c.says)
	}
	for text, says := range map[string]string{
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":""}}}`:                    "keyless",
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{}}`:                                                     "DSSE",
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.9+json"}`:                                                                           "v0.9",
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payloadType":"text/plain","signatures":[{"sig":"AAAA"}]}}`: "text/plain",
		`[]`: "passed over",
	} {
		s := newStore()
		s.bundleText([]byte(text))
		refused(t, loose.Check(ctx, image, d, s), says)
	}
}

func TestRegistriesThatFailOrFlood(t *testing.T) {
	t.Parallel()
	k, d, ctx := key(t, cosign.KindP256), imageDigest("app"), context.Background()
	p := policy(t, wantsOne, map[string][]byte{"a.pub": public(t, k)})
	image := named(t, "registry.example/team/app")
	s := newStore()
	s.failing = fault.New(fault.Unavailable, "get", "manifest", "503")
	if err := p.Check(ctx, image, d, s); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), `"ours"`) {
		t.Errorf("got %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.Check(gone, image, d, s); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	flood := newStore()
	for i := range 500 {
		flood.refer(signed(t, k, fmt.Sprintf("registry.example/team/other%d", i), d), cosign.ArtifactType)
	}
	refused(t, p.Check(ctx, image, d, flood), "not looked at")
	if flood.fetched > 100 {
		t.Errorf("%d requests", flood.fetched)
	}
	if err := p.Check(ctx, image, d, flood); err == nil {
		t.Error("passed")
	}
}

func TestIdentityOfCopies(t *testing.T) {
	t.Parallel()
	k, d, ctx := key(t, cosign.KindP256), imageDigest("app"), context.Background()
	p := policy(t, wantsOne+"identity = \"upstream.example/project/app\"\n", map[string][]byte{"a.pub": public(t, k)})
	s := newStore()
	s.tag(t, signed(t, k, "upstream.example/project/app", d))
	if err := p.Check(ctx, named(t, "registry.example/team/copy"), d, s); err != nil {
		t.Error(err)
	}
	own := newStore()
	own.tag(t, signed(t, k, "registry.example/team/copy", d))
	refused(t, p.Check(ctx, named(t, "registry.example/team/copy"), d, own), "not as upstream.example/project/app")
}

func TestKeysGivenByHand(t *testing.T) {
	t.Parallel()
	k, d := key(t, cosign.KindP256), imageDigest("app")
	p, err := WithKeys(public(t, k))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore()
	refused(t, p.Check(context.Background(), named(t, "localhost:5000/app"), d, s), "not signed")
	s.tag(t, signed(t, k, "localhost:5000/app", d))
	if err := p.Check(context.Background(), named(t, "localhost:5000/app"), d, s); err != nil {
		t.Error(err)
	}
	if _, err := WithKeys(); err == nil {
		t.Error("no key must not mean any key")
	}
}
