package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"

	"berth/internal/fault"
)

// minRSA is the smallest RSA key that is believed, in bits.
const minRSA = 2048

// publicKey is a key that tokens may be signed with.
type publicKey struct {
	id  string // "kid", "" if the file does not say
	key crypto.PublicKey
}

// readKeys reads a PEM file of public keys and certificates, or a JSON Web Key
// Set (RFC 7517).
func readKeys(path string) ([]publicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read token keys", "", "%w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read token keys", path, "%w", err)
	}
	return keys, nil
}

func parseKeys(text []byte) ([]publicKey, error) {
	var keys []publicKey
	rest := text
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := parsePEM(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, publicKey{key: key})
	}
	if len(keys) == 0 {
		var err error
		if keys, err = parseSet(text); err != nil {
			return nil, err
		}
	}
	for _, k := range keys {
		if err := checkKey(k.key); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("holds no public key: neither PEM nor a JSON Web Key Set")
	}
	return keys, nil
}

func parsePEM(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	return nil, fmt.Errorf("a PEM block of type %q is neither a public key nor a certificate", block.Type)
}

func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key of %d bits is too short: at least %d", k.N.BitLen(), minRSA)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("an ECDSA key on another curve than P-256 is not supported")
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %T are not supported: RSA, ECDSA P-256 or Ed25519", key)
	}
	return nil
}

// webKey is a key of a JSON Web Key Set.
type webKey struct {
	Kty, Kid, Crv, Use string
	N, E, X, Y         string
}

func parseSet(text []byte) ([]publicKey, error) {
	var set struct{ Keys []webKey }
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("neither PEM nor a JSON Web Key Set: %w", err)
	}
	var keys []publicKey
	for i, w := range set.Keys {
		if w.Use != "" && w.Use != "sig" {
			continue
		}
		key, err := w.public()
		if err != nil {
			return nil, fmt.Errorf("key %d %q: %w", i, w.Kid, err)
		}
		keys = append(keys, publicKey{w.Kid, key})
	}
	return keys, nil
}

func (w webKey) public() (crypto.PublicKey, error) {
	field := func(s string, n int) ([]byte, error) {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err == nil && (len(b) == 0 || n > 0 && len(b) != n) {
			err = fmt.Errorf("a coordinate of %d bytes", len(b))
		}
		return b, err
	}
	switch {
	case w.Kty == "RSA":
		n, err := field(w.N, 0)
		if err != nil {
			return nil, err
		}
		e, err := field(w.E, 0)
		if err != nil || len(e) > 4 {
			return nil, fmt.Errorf("the exponent is not one")
		}
		exp := int(new(big.Int).SetBytes(e).Int64())
		if exp < 3 || exp%2 == 0 || exp > 1<<31-1 {
			return nil, fmt.Errorf("the exponent %d is not one", exp)
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exp}, nil
	case w.Kty == "EC" && w.Crv == "P-256":
		x, err := field(w.X, 32)
		if err != nil {
			return nil, err
		}
		y, err := field(w.Y, 32)
		if err != nil {
			return nil, err
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	case w.Kty == "OKP" && w.Crv == "Ed25519":
		x, err := field(w.X, ed25519.PublicKeySize)
		return ed25519.PublicKey(x), err
	}
	return nil, fmt.Errorf("kty %q with curve %q is not supported: RSA, EC P-256, OKP Ed25519", w.Kty, w.Crv)
}
