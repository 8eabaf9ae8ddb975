package cosign

import (
	"encoding/json"
	"fmt"
	"strings"

	"berth/internal/fault"
)

// payloadType is what cosign writes into critical.type; containers/image, which
// invented the format, writes the other.
const (
	payloadType     = "cosign container image signature"
	payloadTypeSame = "atomic container signature"
)

// MaxPayload bounds a signed payload: annotations fit, a way to fill memory does
// not.
const MaxPayload = 1 << 20

// Claim is what a signature says: which repository's image it is about, and its
// digest.
type Claim struct {
	Reference string // repository, maybe with tag or digest; "" when the form does not name one
	Digest    string // algorithm:hex
}

// Payload returns the bytes to be signed for an image (the simple-signing
// format of containers/image, as cosign writes it).
func Payload(reference, digest string) ([]byte, error) {
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional any `json:"optional"`
	}
	p.Critical.Identity.Reference, p.Critical.Image.Digest, p.Critical.Type = reference, digest, payloadType
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fault.New(fault.Internal, "write payload", "", "%w", err)
	}
	return text, nil
}

// ParsePayload reads what was signed. Everything in its critical part must be
// understood; its optional part is free.
func ParsePayload(raw []byte) (Claim, error) {
	claim, err := parsePayload(raw)
	if err != nil {
		return Claim{}, fault.New(fault.Invalid, "read payload", "", "%w", err)
	}
	return claim, nil
}

func parsePayload(raw []byte) (claim Claim, err error) {
	if len(raw) > MaxPayload {
		return claim, fmt.Errorf("it has more than %d bytes", MaxPayload)
	}
	whole, err := object(raw)
	if err != nil {
		return claim, err
	}
	critical, err := inner(whole, "critical")
	if err != nil {
		return claim, err
	}
	kind, err := text(critical, "type")
	if err != nil {
		return claim, err
	}
	if kind != payloadType && kind != payloadTypeSame {
		return claim, fmt.Errorf("its type is %q, not that of an image's signature", kind)
	}
	for name := range critical {
		if name != "type" && name != "identity" && name != "image" {
			return claim, fmt.Errorf("its critical part holds %q, which is not understood", name)
		}
	}
	if claim.Digest, err = only(critical, "image", "docker-manifest-digest"); err != nil {
		return claim, err
	}
	claim.Reference, err = only(critical, "identity", "docker-reference")
	return claim, err
}

// only reads the single string of an object within the critical part.
func only(critical map[string]json.RawMessage, part, name string) (string, error) {
	fields, err := inner(critical, part)
	if err != nil {
		return "", err
	}
	for other := range fields {
		if other != name {
			return "", fmt.Errorf("its %s holds %q, which is not understood", part, other)
		}
	}
	return text(fields, name)
}

// Tag returns the tag under which cosign keeps the signatures of a digest,
// "" for one that no tag can hold.
func Tag(digest string) string {
	algorithm, encoded, ok := strings.Cut(digest, ":")
	if tag := algorithm + "-" + encoded + ".sig"; ok && len(tag) <= 128 {
		return tag
	}
	return ""
}
