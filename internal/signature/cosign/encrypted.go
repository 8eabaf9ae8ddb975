package cosign

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"berth/internal/fault"
)

// PEM types of encrypted key files: today's and the one before it.
const (
	blockSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
	blockCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
)

// scrypt's costs: what is written (cosign's own), and what is accepted, because
// the file says how much memory reading it takes.
const (
	writtenN       = 1 << 16
	writtenR       = 8
	writtenP       = 1
	maxScryptBytes = 256 << 20
	maxScryptP     = 16
)

// envelope is the JSON inside an encrypted key file.
type envelope struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// ErrPassword says that a key file did not open with the password given.
var ErrPassword = errors.New("the password is wrong, or the file is damaged")

// ParsePrivateKey reads a private key: one that cosign encrypted, or a plain one
// (PKCS #8, or the older forms of EC and RSA keys). password is asked for an
// encrypted key alone.
func ParsePrivateKey(text []byte, password func() ([]byte, error)) (*PrivateKey, error) {
	if len(text) > maxKeyFile {
		return nil, keyError("the file has more than %d bytes", maxKeyFile)
	}
	block, _ := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl writes them in front of the key
		_, rest := pem.Decode(text)
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, keyError("it is not a PEM file")
	}
	var parsed any
	var err error
	switch block.Type {
	case blockSigstore, blockCosign:
		return openEncrypted(block.Bytes, password)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, keyError("it is encrypted in a way that is not offered (PKCS #8)").
			WithHint("import it with 'cosign import-key-pair', or make a key with 'berth image keygen'")
	case "PUBLIC KEY":
		return nil, keyError("it is a public key").WithHint("name the private half of it to sign")
	default:
		return nil, keyError("it holds a %q", block.Type)
	}
	if err != nil {
		return nil, keyError("%w", err)
	}
	return newPrivateKey(parsed)
}

func newPrivateKey(parsed any) (*PrivateKey, error) {
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, keyError("keys of the kind %T cannot sign", parsed)
	}
	if err := offered(signer.Public()); err != nil {
		return nil, err
	}
	return &PrivateKey{signer}, nil
}

func openEncrypted(text []byte, password func() ([]byte, error)) (*PrivateKey, error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, keyError("its content is malformed: %w", err)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	secret, err := password()
	if err != nil {
		return nil, err
	}
	box, err := e.derive(secret)
	if err != nil {
		return nil, err
	}
	var nonce [24]byte
	copy(nonce[:], e.Cipher.Nonce)
	der, ok := secretbox.Open(nil, e.Ciphertext, &nonce, box)
	if !ok {
		return nil, fault.New(fault.Unauthorized, "open key", "", "%w", ErrPassword)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, keyError("%w", err)
	}
	return newPrivateKey(parsed)
}

// check refuses what is not offered, and costs that nobody means.
func (e *envelope) check() error {
	n, r, p := e.KDF.Params.N, e.KDF.Params.R, e.KDF.Params.P
	switch {
	case e.KDF.Name != "scrypt":
		return keyError("its key derivation %q is not offered", e.KDF.Name)
	case e.Cipher.Name != "nacl/secretbox":
		return keyError("its cipher %q is not offered", e.Cipher.Name)
	case len(e.Cipher.Nonce) != 24:
		return keyError("its nonce has %d bytes, not 24", len(e.Cipher.Nonce))
	case len(e.KDF.Salt) < 16 || len(e.KDF.Salt) > 256:
		return keyError("its salt has %d bytes", len(e.KDF.Salt))
	case n < 2 || n&(n-1) != 0 || r < 1 || p < 1:
		return keyError("its scrypt parameters make no sense")
	case n > maxScryptBytes/128 || r > maxScryptBytes/128/n || p > maxScryptP:
		return keyError("its scrypt parameters (N %d, r %d, p %d) would take too much memory or time", n, r, p)
	}
	return nil
}

func (e *envelope) derive(secret []byte) (*[32]byte, error) {
	derived, err := scrypt.Key(secret, e.KDF.Salt, e.KDF.Params.N, e.KDF.Params.R, e.KDF.Params.P, 32)
	if err != nil {
		return nil, keyError("%w", err)
	}
	return (*[32]byte)(derived), nil
}

// Encrypt returns the key as a file that cosign reads, too.
func (k *PrivateKey) Encrypt(password []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fault.New(fault.Internal, "encrypt key", "", "%w", err)
	}
	var e envelope
	var nonce [24]byte
	e.KDF.Name, e.Cipher.Name = "scrypt", "nacl/secretbox"
	e.KDF.Params.N, e.KDF.Params.R, e.KDF.Params.P = writtenN, writtenR, writtenP
	e.KDF.Salt = make([]byte, 32)
	_, _ = rand.Read(e.KDF.Salt) // never fails
	_, _ = rand.Read(nonce[:])
	e.Cipher.Nonce = nonce[:]
	box, err := e.derive(password)
	if err != nil {
		return nil, err
	}
	e.Ciphertext = secretbox.Seal(nil, der, &nonce, box)
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fault.New(fault.Internal, "encrypt key", "", "%w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockSigstore, Bytes: text}), nil
}
