package cosign

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"berth/internal/fault"
)

// What a bundle about an image holds: a DSSE envelope around an in-toto
// statement that names the image by digest (sigstore's protobuf-specs, and
// cosign since version 3).
const (
	payloadTypeInToto = "application/vnd.in-toto+json"
	statementV1       = "https://in-toto.io/Statement/v1"
	statementV01      = "https://in-toto.io/Statement/v0.1"
	predicateSign     = "https://sigstore.dev/cosign/sign/v1"
)

// ErrKeyless says that a bundle is signed by a short-lived certificate instead
// of a key.
var ErrKeyless = errors.New("it is signed with a certificate (keyless), which is not offered yet: only public keys are")

// Bundle is a signature that carries its own payload.
type Bundle struct {
	payload    []byte
	signatures [][]byte
}

// ParseBundle reads a bundle about an image, signed by a key. The transparency
// log and time stamps in it are not looked at: who trusts a key trusts what it
// signed at any time.
func ParseBundle(raw []byte) (*Bundle, error) {
	b, err := parseBundle(raw)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read bundle", "", "%w", err)
	}
	return b, nil
}

func parseBundle(raw []byte) (*Bundle, error) {
	if len(raw) > MaxPayload {
		return nil, fmt.Errorf("it has more than %d bytes", MaxPayload)
	}
	var in struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			PublicKey   json.RawMessage `json:"publicKey"`
			Certificate json.RawMessage `json:"certificate"`
			Chain       json.RawMessage `json:"x509CertificateChain"`
		} `json:"verificationMaterial"`
		Message  json.RawMessage `json:"messageSignature"`
		Envelope *struct {
			Payload     string `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, err
	}
	switch {
	case in.MediaType != MediaTypeBundle:
		return nil, fmt.Errorf("its form is %q, and only %s is offered", in.MediaType, MediaTypeBundle)
	case in.Material.Certificate != nil || in.Material.Chain != nil:
		return nil, ErrKeyless
	case in.Message != nil || in.Envelope == nil:
		return nil, errors.New("it holds no DSSE envelope, the only content that is offered")
	case in.Envelope.PayloadType != payloadTypeInToto:
		return nil, fmt.Errorf("its payload is of the type %q, not an in-toto statement", in.Envelope.PayloadType)
	case len(in.Envelope.Signatures) == 0 || len(in.Envelope.Signatures) > maxLayers:
		return nil, fmt.Errorf("it holds %d signatures", len(in.Envelope.Signatures))
	}
	b := &Bundle{}
	var err error
	if b.payload, err = base64.StdEncoding.DecodeString(in.Envelope.Payload); err != nil {
		return nil, errors.New("its payload is not base64")
	}
	for _, s := range in.Envelope.Signatures {
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || len(sig) > maxSignature {
			return nil, errors.New("a signature in it is malformed")
		}
		b.signatures = append(b.signatures, sig)
	}
	return b, nil
}

// SignedBy reports whether one of the bundle's signatures is the key's.
func (b *Bundle) SignedBy(key *PublicKey) bool {
	message := preAuthentication(payloadTypeInToto, b.payload)
	for _, sig := range b.signatures {
		if key.Verify(message, sig) {
			return true
		}
	}
	return false
}

// preAuthentication is the encoding that DSSE signs.
func preAuthentication(kind string, payload []byte) []byte {
	var out []byte
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(kind)), 10)
	out = append(out, " "+kind+" "...)
	out = strconv.AppendInt(out, int64(len(payload)), 10)
	out = append(out, ' ')
	return append(out, payload...)
}

// Claims returns the digests that the bundle's statement is about. A statement
// that says something else about an image (its parts, its tests) is refused: it
// is no word that the image may be used.
func (b *Bundle) Claims() ([]Claim, error) {
	claims, err := b.claims()
	if err != nil {
		return nil, fault.New(fault.Invalid, "read bundle", "", "%w", err)
	}
	return claims, nil
}

func (b *Bundle) claims() ([]Claim, error) {
	statement, err := object(b.payload)
	if err != nil {
		return nil, err
	}
	kind, err := text(statement, "_type")
	if err != nil {
		return nil, err
	}
	if kind != statementV1 && kind != statementV01 {
		return nil, fmt.Errorf("its statement is of the type %q", kind)
	}
	predicate, err := text(statement, "predicateType")
	if err != nil {
		return nil, err
	}
	if predicate != predicateSign {
		return nil, fmt.Errorf("it says something about an image (%q), not that the image is signed", predicate)
	}
	var subjects []json.RawMessage
	if err := json.Unmarshal(statement["subject"], &subjects); err != nil || len(subjects) == 0 || len(subjects) > maxLayers {
		return nil, errors.New("its subjects are malformed")
	}
	var claims []Claim
	for _, raw := range subjects {
		subject, err := object(raw)
		if err != nil {
			return nil, err
		}
		digests, err := inner(subject, "digest")
		if err != nil {
			return nil, err
		}
		sum, err := text(digests, "sha256")
		if err != nil {
			return nil, err
		}
		claims = append(claims, Claim{Digest: "sha256:" + strings.ToLower(sum)})
	}
	return claims, nil
}
