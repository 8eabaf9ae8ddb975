// Package cosign reads and writes signatures of images in the forms that cosign
// made common: the simple-signing payload, the manifest that carries it, the
// bundle, and the key files. It exists apart from the policy so that the command
// line can sign without linking what reads policies and references; it knows no
// registry and opens no file.
package cosign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"

	"berth/internal/fault"
)

// maxKeyFile bounds a key file; the largest sensible one has a few kilobytes.
const maxKeyFile = 64 << 10

// Bounds on RSA keys: below the first they can be broken, above the second a
// single check costs more than a pull.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// PublicKey checks signatures. Its kind alone decides the algorithm: nothing
// that comes with a signature can choose another.
type PublicKey struct {
	key crypto.PublicKey
	der []byte
}

// ID returns a short name of the key: the start of the SHA-256 of its encoding.
func (k *PublicKey) ID() string {
	sum := sha256.Sum256(k.der)
	return hex.EncodeToString(sum[:8])
}

// Equal reports whether both are the same key.
func (k *PublicKey) Equal(other *PublicKey) bool { return bytes.Equal(k.der, other.der) }

// PEM returns the key as files hold it.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})
}

// Verify reports whether signature is this key's over message. ECDSA is over
// SHA-256, with P-384 also over SHA-384 (cosign writes either); RSA is PKCS #1
// v1.5 over SHA-256; Ed25519 is over the message itself.
func (k *PublicKey) Verify(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(key, sum[:], signature) {
			return true
		}
		return key.Curve == elliptic.P384() && ecdsa.VerifyASN1(key, sum384(message), signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case ed25519.PublicKey:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(key, message, signature)
	}
	return false
}

func sum384(message []byte) []byte {
	h := crypto.SHA384.New()
	h.Write(message)
	return h.Sum(nil)
}

// ParsePublicKeys reads all public keys of a PEM file. Anything else in it is
// refused by name.
func ParsePublicKeys(text []byte) ([]*PublicKey, error) {
	if len(text) > maxKeyFile {
		return nil, keyError("the file has more than %d bytes", maxKeyFile)
	}
	var keys []*PublicKey
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(keys) == 0 || len(bytes.TrimSpace(rest)) > 0 {
				return nil, keyError("it is not a PEM file of public keys")
			}
			return keys, nil
		}
		key, err := parsePublicBlock(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
}

func parsePublicBlock(block *pem.Block) (*PublicKey, error) {
	var parsed any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		return nil, keyError("it is a certificate, and only plain public keys are offered yet")
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", blockSigstore, blockCosign:
		return nil, keyError("it is a private key").WithHint("name the public half of it, and keep this one secret")
	default:
		return nil, keyError("it holds a %q", block.Type)
	}
	if err != nil {
		return nil, keyError("%w", err)
	}
	return NewPublicKey(parsed)
}

// NewPublicKey wraps a key of the standard library; kinds that are not offered
// are refused by name.
func NewPublicKey(key crypto.PublicKey) (*PublicKey, error) {
	if err := offered(key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, keyError("%w", err)
	}
	return &PublicKey{key, der}, nil
}

func offered(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return keyError("ECDSA with the curve %s is not offered", key.Params().Name).WithHint("use P-256 or P-384")
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return keyError("an RSA key of %d bits is not accepted", bits).WithHint("use %d to %d bits", minRSABits, maxRSABits)
		}
	case ed25519.PublicKey:
	default:
		return keyError("keys of the kind %T are not offered", key).WithHint("use ECDSA (P-256, P-384), Ed25519 or RSA")
	}
	return nil
}

func keyError(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "read key", "", format, args...)
}

// PrivateKey makes signatures.
type PrivateKey struct{ signer crypto.Signer }

// Public returns the half that may be shown.
func (k *PrivateKey) Public() (*PublicKey, error) { return NewPublicKey(k.signer.Public()) }

// Sign signs message as Verify checks it.
func (k *PrivateKey) Sign(message []byte) ([]byte, error) {
	if _, ok := k.signer.(ed25519.PrivateKey); ok {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// Kinds of keys that GenerateKey makes.
const (
	KindP256    = "ecdsa-p256"
	KindP384    = "ecdsa-p384"
	KindEd25519 = "ed25519"
	KindRSA     = "rsa-3072"
)

// Kinds lists the kinds of keys that GenerateKey makes, the usual one first.
func Kinds() []string { return []string{KindP256, KindP384, KindEd25519, KindRSA} }

// GenerateKey makes a key of a kind.
func GenerateKey(kind string) (*PrivateKey, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case KindP256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case KindP384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case KindEd25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case KindRSA:
		signer, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		return nil, fault.New(fault.Invalid, "make key", "", "there is no kind %q", kind).
			WithHint("use %s, %s, %s or %s", KindP256, KindP384, KindEd25519, KindRSA)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "make key", "", "%w", err)
	}
	return &PrivateKey{signer}, nil
}
