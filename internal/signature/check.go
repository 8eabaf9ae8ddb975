package signature

import (
	"context"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/signature/cosign"
)

// Source fetches what a repository holds. What is not there is fault.NotFound.
type Source interface {
	// Manifest returns a manifest by tag or digest.
	Manifest(ctx context.Context, ref string) (raw []byte, mediaType string, err error)
	// Blob returns a small blob.
	Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// Referrers lists what refers to a manifest; "" is every artifact type.
	Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
}

// Bounds on what is looked at for one image: a registry that serves more
// signatures than anybody makes wants to keep this machine busy.
const (
	maxManifests = 32
	maxEntries   = 256
	maxNotes     = 4 // reasons that a refusal gives
)

// Check returns nil when the image d of the repository named may be used. d is
// the digest that the name led to: of the index for an image of several
// platforms. An error of kind Forbidden names the rule and what to do about it.
func (p *Policy) Check(ctx context.Context, named reference.Named, d digest.Digest, src Source) error {
	if p == nil {
		return nil
	}
	name := repositoryName(named)
	r := p.find(name)
	if r == nil {
		if p.fallback == Allow {
			return nil
		}
		return p.refuse(named, "no rule of the signature policy names %s, and its default is to deny", name).
			WithHint("add a rule for it%s", p.where())
	}
	switch r.action {
	case Allow:
		return nil
	case Deny:
		return p.refuse(named, "the signature policy's rule %q denies it", r.name).WithHint("change the rule%s", p.where())
	}
	if err := d.Validate(); err != nil {
		return p.refuse(named, "the rule %q wants a signature, and %q is no digest that could have one", r.name, d)
	}
	h := &hunt{rule: r, named: named, name: name, digest: d, src: src, signed: make([]bool, len(r.keys))}
	if err := h.run(ctx); err != nil {
		return err
	}
	if h.enough() {
		return nil
	}
	return p.unsigned(h)
}

func (p *Policy) find(name string) *rule {
	for i := range p.rules {
		for _, one := range p.rules[i].patterns {
			if one.matches(name) {
				return &p.rules[i]
			}
		}
	}
	return nil
}

func (p *Policy) refuse(named reference.Named, format string, args ...any) *fault.Error {
	return fault.New(fault.Forbidden, "use image", reference.FamiliarString(named), format, args...)
}

func (p *Policy) where() string {
	if p.path == "" {
		return ""
	}
	return " in " + p.path
}

// unsigned explains what is missing.
func (p *Policy) unsigned(h *hunt) error {
	if h.unreachable != nil {
		return fault.New(fault.Unavailable, "check signatures of", reference.FamiliarString(h.named),
			"the rule %q wants a signature, and what the registry holds cannot be read: %w", h.rule.name, h.unreachable).
			WithHint("try again, or look at the registry")
	}
	wants := "a signature"
	if h.rule.threshold > 1 {
		wants = fmt.Sprintf("signatures by %d of %d keys", h.rule.threshold, len(h.rule.keys))
	}
	what, args := "the rule %q wants %s, and ", []any{h.rule.name, wants}
	if p.byHand {
		what, args = "", nil
	}
	switch n := h.count(); {
	case n > 0:
		what, args = what+"there are valid ones by %d only", append(args, n)
	case h.seen == 0 && len(h.notes) == 0:
		what, args = what+"%s is not signed", append(args, short(h.digest))
	default:
		what, args = what+"none of what is signed counts for %s", append(args, short(h.digest))
	}
	if h.cut != "" {
		h.notes = append(h.notes, h.cut)
	}
	if len(h.notes) > 0 {
		what, args = what+": %s", append(args, strings.Join(h.notes, "; "))
	}
	if p.byHand {
		return fault.New(fault.Forbidden, "check signature of", reference.FamiliarString(h.named), what, args...).
			WithHint("sign it with 'berth image sign --key KEY %s', or check it with the key that signed it", reference.FamiliarString(h.named))
	}
	return p.refuse(h.named, what, args...).WithHint("sign it with 'berth image sign --key KEY %s', or change the rule%s",
		reference.FamiliarString(h.named), p.where())
}

func short(d digest.Digest) string {
	text := d.String()
	return text[:min(len(text), 7+12)]
}

// hunt looks for the signatures of one image.
type hunt struct {
	rule   *rule
	named  reference.Named
	name   string // of the repository, as rules know it
	digest digest.Digest
	src    Source

	signed      []bool // by which key of the rule
	seen        int    // signatures looked at
	manifests   int
	notes       []string // why signatures did not count, each reason once
	cut         string   // what was too much to look at
	unreachable error    // what could not be fetched
}

func (h *hunt) count() int {
	n := 0
	for _, yes := range h.signed {
		if yes {
			n++
		}
	}
	return n
}

func (h *hunt) enough() bool { return h.count() >= h.rule.threshold }

// note remembers a reason for the refusal, if there is to be one.
func (h *hunt) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, known := range h.notes {
		if known == text {
			return
		}
	}
	if len(h.notes) < maxNotes {
		h.notes = append(h.notes, text)
	}
}

// missed remembers what could not be fetched. Only the end of the caller's
// patience is an error now: another signature may be enough.
func (h *hunt) missed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !fault.Is(err, fault.NotFound) && h.unreachable == nil {
		h.unreachable = err
	}
	return nil
}

// run looks at the tag first, where most signatures are, then at the referrers.
func (h *hunt) run(ctx context.Context) error {
	if tag := cosign.Tag(h.digest.String()); tag != "" {
		if err := h.manifest(ctx, tag); err != nil || h.enough() {
			return err
		}
	}
	list, err := h.src.Referrers(ctx, h.digest, "")
	if err != nil {
		return h.missed(ctx, err)
	}
	for _, d := range list {
		if !cosign.IsSignature(d.ArtifactType) {
			continue
		}
		if h.manifests >= maxManifests {
			h.cut = fmt.Sprintf("there are more than %d manifests of signatures, and the rest was not looked at", maxManifests)
			return nil
		}
		if err := h.manifest(ctx, d.Digest.String()); err != nil || h.enough() {
			return err
		}
	}
	return nil
}

// manifest looks at the signatures of one manifest.
func (h *hunt) manifest(ctx context.Context, ref string) error {
	h.manifests++
	raw, _, err := h.src.Manifest(ctx, ref)
	if err != nil {
		return h.missed(ctx, err)
	}
	entries, err := cosign.ParseManifest(raw)
	if err != nil {
		h.note("%s", cause(err))
		return nil
	}
	for _, e := range entries {
		if h.seen >= maxEntries {
			h.cut = fmt.Sprintf("there are more than %d signatures, and the rest was not looked at", maxEntries)
			return nil
		}
		h.seen++
		if err := h.entry(ctx, e); err != nil || h.enough() {
			return err
		}
	}
	return nil
}

// entry looks at one signature.
func (h *hunt) entry(ctx context.Context, e cosign.Entry) error {
	want := digest.Digest(e.Blob.Digest)
	if want.Validate() != nil {
		h.note("a payload's digest %q is malformed", e.Blob.Digest)
		return nil
	}
	content, err := h.src.Blob(ctx, ocispec.Descriptor{MediaType: e.Blob.MediaType, Digest: want, Size: e.Blob.Size})
	if err != nil {
		return h.missed(ctx, err)
	}
	if want.Algorithm().FromBytes(content) != want {
		h.note("a payload does not have the digest that its manifest says")
		return nil
	}
	if e.Signature == nil {
		h.bundle(content)
		return nil
	}
	h.simple(content, e.Signature)
	return nil
}

// simple checks a payload with a signature beside it. Nothing of the payload is
// read before the signature holds.
func (h *hunt) simple(payload, signature []byte) {
	for i, key := range h.rule.keys {
		if !key.Verify(payload, signature) {
			continue
		}
		claim, err := cosign.ParsePayload(payload)
		if err != nil {
			h.note("key %s signed something else: %s", key.ID(), cause(err))
			return
		}
		if h.counts(key, claim) {
			h.signed[i] = true
		}
		return
	}
	h.note("there is a signature by another key")
}

// bundle checks a payload that carries its signatures.
func (h *hunt) bundle(raw []byte) {
	b, err := cosign.ParseBundle(raw)
	if err != nil {
		h.note("a bundle was passed over: %s", cause(err))
		return
	}
	known := false
	for i, key := range h.rule.keys {
		if !b.SignedBy(key) {
			continue
		}
		known = true
		claims, err := b.Claims()
		if err != nil {
			h.note("key %s signed something else: %s", key.ID(), cause(err))
			return
		}
		for _, claim := range claims {
			if h.counts(key, claim) {
				h.signed[i] = true
				break
			}
		}
	}
	if !known {
		h.note("there is a signature by another key")
	}
}

// counts reports whether what a key signed is about this image.
func (h *hunt) counts(key *cosign.PublicKey, claim cosign.Claim) bool {
	if claim.Digest != h.digest.String() {
		h.note("key %s signed another image (%s)", key.ID(), short(digest.Digest(claim.Digest)))
		return false
	}
	if h.rule.identity == identityAny {
		return true
	}
	if claim.Reference == "" {
		h.note("key %s signed this image without naming a repository, as bundles do; identity = %q in the rule accepts that", key.ID(), identityAny)
		return false
	}
	want := h.name
	if h.rule.identity != identityOwn {
		want = h.rule.identity
	}
	if why := names(claim.Reference, want, h.named); why != "" {
		h.note("key %s signed it as %q, %s", key.ID(), clean(claim.Reference), why)
		return false
	}
	return true
}

// names returns why a signed reference is not about the wanted repository, "" if
// it is. A tag in it must be the one that was asked for, if one was.
func names(signed, want string, named reference.Named) string {
	got, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return "which is no repository"
	}
	if repositoryName(got) != want {
		return "not as " + want
	}
	if tagged, ok := got.(reference.Tagged); ok {
		if _, byDigest := named.(reference.Digested); byDigest {
			return ""
		}
		if asked, ok := named.(reference.Tagged); ok && asked.Tag() != tagged.Tag() {
			return "not with the tag " + asked.Tag()
		}
	}
	return ""
}

// clean makes what a stranger wrote fit for a line of text.
func clean(text string) string {
	return text[:min(len(text), 200)]
}

// cause returns an error's text without the operation in front of it.
func cause(err error) string {
	if f, ok := err.(*fault.Error); ok && f.Err != nil {
		return f.Err.Error()
	}
	return err.Error()
}
