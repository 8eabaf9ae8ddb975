package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// leeway is how far the clocks of whoever signs tokens and of this machine may
// differ.
const leeway = time.Minute

// longestToken bounds what is parsed, in bytes.
const longestToken = 32 << 10

// Access is one entry of a token's access list, as docker's token
// specification has it.
type Access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// claims is what a token says (RFC 7519).
type claims struct {
	Issuer    string   `json:"iss,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  audience `json:"aud,omitempty"`
	Expires   *float64 `json:"exp,omitempty"`
	NotBefore *float64 `json:"nbf,omitempty"`
	IssuedAt  *float64 `json:"iat,omitempty"`
	ID        string   `json:"jti,omitempty"`
	Access    []Access `json:"access"`
}

// audience is one text or a list of them.
type audience []string

// UnmarshalJSON reads both forms.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	var list []string
	err := json.Unmarshal(b, &list)
	*a = list
	return err
}

// MarshalJSON writes a single one as a text, which every client reads.
func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

type header struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid,omitempty"`
	Type      string   `json:"typ,omitempty"`
	Critical  []string `json:"crit,omitempty"`
}

var errToken = errors.New("the token is not valid")

// verifyToken checks a token's signature against the keys and returns what it
// says. The algorithm is the key's, never what the token asks for (RFC 8725,
// section 3.1).
func verifyToken(token string, keys []publicKey) (claims, error) {
	var c claims
	if len(token) > longestToken {
		return c, fmt.Errorf("%w: larger than %d bytes", errToken, longestToken)
	}
	part := strings.Split(token, ".")
	if len(part) != 3 {
		return c, fmt.Errorf("%w: not three parts", errToken)
	}
	var h header
	if err := decodePart(part[0], &h); err != nil {
		return c, fmt.Errorf("%w: header: %w", errToken, err)
	}
	if len(h.Critical) > 0 {
		return c, fmt.Errorf("%w: critical extensions %q are not understood", errToken, h.Critical)
	}
	sig, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil {
		return c, fmt.Errorf("%w: signature: %w", errToken, err)
	}
	if !verifySignature(h, []byte(part[0]+"."+part[1]), sig, keys) {
		return c, fmt.Errorf("%w: no known key verifies its signature (alg %.20q, kid %.80q)", errToken, h.Algorithm, h.KeyID)
	}
	if err := decodePart(part[1], &c); err != nil {
		return c, fmt.Errorf("%w: claims: %w", errToken, err)
	}
	return c, nil
}

func decodePart(s string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func verifySignature(h header, signed, sig []byte, keys []publicKey) bool {
	named := slices.ContainsFunc(keys, func(k publicKey) bool { return k.id != "" && k.id == h.KeyID })
	sum := sha256.Sum256(signed)
	for _, k := range keys {
		if named && k.id != h.KeyID {
			continue
		}
		switch key := k.key.(type) {
		case *rsa.PublicKey:
			if h.Algorithm == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil {
				return true
			}
		case *ecdsa.PublicKey:
			if h.Algorithm == "ES256" && len(sig) == 64 &&
				ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
				return true
			}
		case ed25519.PublicKey:
			if h.Algorithm == "EdDSA" && ed25519.Verify(key, signed, sig) {
				return true
			}
		}
	}
	return false
}

// check reports whether the token was meant for us and for now. A token without
// an end is refused: it could never be taken back.
func (c claims) check(issuer, service string, now time.Time) error {
	at := func(f *float64) time.Time { return time.Unix(int64(*f), 0) }
	switch {
	case issuer != "" && c.Issuer != issuer:
		return fmt.Errorf("%w: issued by %.80q, not by %q", errToken, c.Issuer, issuer)
	case service != "" && !slices.Contains(c.Audience, service):
		return fmt.Errorf("%w: meant for %.80q, not for %q", errToken, []string(c.Audience), service)
	case c.Expires == nil:
		return fmt.Errorf("%w: it never expires", errToken)
	case *c.Expires > 1e11 || *c.Expires < 0 || now.After(at(c.Expires).Add(leeway)):
		return fmt.Errorf("%w: it has expired", errToken)
	case c.NotBefore != nil && (*c.NotBefore > 1e11 || now.Before(at(c.NotBefore).Add(-leeway))):
		return fmt.Errorf("%w: it is not valid yet", errToken)
	}
	return nil
}

// signer makes the tokens of the built-in endpoint, signed with Ed25519.
type signer struct {
	key ed25519.PrivateKey
	id  string
}

func newSigner(seed []byte) (*signer, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the key for tokens has %d bytes, not %d", len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return &signer{key, "berth-" + base64.RawURLEncoding.EncodeToString(sum[:12])}, nil
}

func (s *signer) public() publicKey { return publicKey{s.id, s.key.Public()} }

func (s *signer) sign(c claims) (string, error) {
	h, err := json.Marshal(header{Algorithm: "EdDSA", KeyID: s.id, Type: "JWT"})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(text))), nil
}

func newClaims(issuer, service, user string, access []Access, now time.Time, ttl time.Duration) claims {
	seconds := func(t time.Time) *float64 { f := float64(t.Unix()); return &f }
	return claims{
		Issuer: issuer, Subject: user, Audience: audience{service}, ID: rand.Text(),
		Expires: seconds(now.Add(ttl)), NotBefore: seconds(now), IssuedAt: seconds(now), Access: access,
	}
}
