package cosign

import (
	"crypto/dsa" //nolint:staticcheck // shows that a kind of key nobody offers is refused
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func pass(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

func TestKeysSurviveTheirFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k, err := GenerateKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			file, err := k.Encrypt([]byte("secret"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParsePrivateKey(file, pass("wrong")); !errors.Is(err, ErrPassword) {
				t.Errorf("wrong password: %v", err)
			}
			der, _ := x509.MarshalPKCS8PrivateKey(k.signer)
			plain := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
			public, _ := k.Public()
			parsed, err := ParsePublicKeys(public.PEM())
			if err != nil || len(parsed) != 1 || !parsed[0].Equal(public) || parsed[0].ID() != public.ID() {
				t.Fatalf("got %v, %v", parsed, err)
			}
			for _, text := range [][]byte{file, plain} {
				again, err := ParsePrivateKey(text, pass("secret"))
				if err != nil {
					t.Fatal(err)
				}
				sig, err := again.Sign([]byte("message"))
				if err != nil || !parsed[0].Verify([]byte("message"), sig) {
					t.Errorf("its signature does not hold: %v", err)
				}
				if parsed[0].Verify([]byte("messagE"), sig) || parsed[0].Verify([]byte("message"), sig[1:]) || parsed[0].Verify([]byte("message"), nil) {
					t.Error("a wrong one holds")
				}
			}
		})
	}
	if _, err := GenerateKey("dsa"); err == nil || !strings.Contains(err.Error(), KindP256) {
		t.Errorf("got %v", err)
	}
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestKeysThatAreNotOffered(t *testing.T) {
	t.Parallel()
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	smallDER, _ := x509.MarshalPKIXPublicKey(&small.PublicKey)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p224DER, _ := x509.MarshalPKIXPublicKey(&p224.PublicKey)
	for text, says := range map[string]string{
		encode("PUBLIC KEY", smallDER):       "1024 bits",
		encode("PUBLIC KEY", p224DER):        "P-224",
		encode("CERTIFICATE", p224DER):       "certificate",
		encode("EC PRIVATE KEY", p224DER):    "private key",
		encode("OPENSSH PRIVATE KEY", nil):   "OPENSSH",
		"hello":                              "not a PEM",
		"":                                   "not a PEM",
		strings.Repeat("x", maxKeyFile+1):    "more than",
		encode("PUBLIC KEY", []byte("junk")): "asn1",
	} {
		if _, err := ParsePublicKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	if _, err := NewPublicKey(&dsa.PublicKey{}); err == nil {
		t.Error("DSA is accepted")
	}
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(small)
	for text, says := range map[string]string{
		encode("PRIVATE KEY", pkcs8):         "1024 bits",
		encode("ENCRYPTED PRIVATE KEY", nil): "import",
		encode("PUBLIC KEY", p224DER):        "public key",
		encode("X", nil):                     `"X"`,
		"hello":                              "PEM",
	} {
		if _, err := ParsePrivateKey([]byte(text), pass("")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

// TestKeyFilesMayNotCostTheMachine changes what an encrypted file asks for.
func TestKeyFilesMayNotCostTheMachine(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*envelope){
		func(e *envelope) { e.KDF.Params.N = 1 << 40 },
		func(e *envelope) { e.KDF.Params.N = 3 },
		func(e *envelope) { e.KDF.Params.R = 1 << 30 },
		func(e *envelope) { e.KDF.Params.P = 1 << 30 },
		func(e *envelope) { e.KDF.Params.N, e.KDF.Params.R = 1<<20, 1<<20 },
		func(e *envelope) { e.KDF.Name = "argon2" },
		func(e *envelope) { e.Cipher.Name = "aes" },
		func(e *envelope) { e.Cipher.Nonce = nil },
		func(e *envelope) { e.KDF.Salt = nil },
	} {
		var e envelope
		e.KDF.Name, e.Cipher.Name, e.Cipher.Nonce, e.KDF.Salt = "scrypt", "nacl/secretbox", make([]byte, 24), make([]byte, 32)
		e.KDF.Params.N, e.KDF.Params.R, e.KDF.Params.P = 2, 8, 1
		change(&e)
		text, _ := json.Marshal(e)
		asked := false
		_, err := ParsePrivateKey([]byte(encode(blockSigstore, text)), func() ([]byte, error) { asked = true; return nil, nil })
		if err == nil || asked {
			t.Errorf("%+v: got %v, password asked for: %v", e.KDF, err, asked)
		}
	}
}

func TestOlderForms(t *testing.T) {
	t.Parallel()
	k, _ := GenerateKey(KindP256)
	der, _ := x509.MarshalECPrivateKey(k.signer.(*ecdsa.PrivateKey))
	withParameters := encode("EC PARAMETERS", []byte{6, 8}) + encode("EC PRIVATE KEY", der)
	if _, err := ParsePrivateKey([]byte(withParameters), pass("")); err != nil {
		t.Error(err)
	}
	r, _ := GenerateKey(KindRSA)
	if _, err := ParsePrivateKey([]byte(encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r.signer.(*rsa.PrivateKey)))), pass("")); err != nil {
		t.Error(err)
	}
	file, _ := k.Encrypt([]byte("x"))
	old := strings.ReplaceAll(string(file), "SIGSTORE", "COSIGN")
	if _, err := ParsePrivateKey([]byte(old), pass("x")); err != nil {
		t.Error(err)
	}
}

func TestMergeKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	a, _ := GenerateKey(KindEd25519)
	b, _ := GenerateKey(KindEd25519)
	about := Descriptor{MediaType: MediaTypeManifest, Digest: Digest([]byte("image")), Size: 5}
	first, _ := Sign(a, "r.example/x", about)
	second, _ := Sign(b, "r.example/x", about)
	merged, err := Merge(first.Manifest, second)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Merge(merged.Manifest, second)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Artifact{merged, again} {
		entries, err := ParseManifest(m.Manifest)
		if err != nil || len(entries) != 2 {
			t.Errorf("%d entries, %v", len(entries), err)
		}
		var parsed manifest
		if json.Unmarshal(m.Manifest, &parsed) != nil || parsed.Config.Digest != Digest(m.Blobs[0]) || parsed.Subject == nil {
			t.Errorf("got %s", m.Manifest)
		}
	}
	if _, err := Merge([]byte("{"), second); err == nil {
		t.Error("a malformed manifest is replaced")
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	k, _ := GenerateKey(KindEd25519)
	file, _ := k.Encrypt([]byte("x"))
	f.Add(file)
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = ParsePrivateKey(text, func() ([]byte, error) { return nil, errors.New("not asked") })
		_, _ = ParsePublicKeys(text)
	})
}

// TestVectorsOfSigstore reads what sigstore's own library wrote: a key made for
// this test alone, and signatures by it over SHA-256 and SHA-384.
func TestVectorsOfSigstore(t *testing.T) {
	t.Parallel()
	file := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	keys, err := ParsePublicKeys(file("sigstore.pub"))
	if err != nil {
		t.Fatal(err)
	}
	private, err := ParsePrivateKey(file("sigstore.key"), pass("berth"))
	if err != nil {
		t.Fatal(err)
	}
	if public, err := private.Public(); err != nil || !public.Equal(keys[0]) {
		t.Errorf("the halves differ: %v", err)
	}
	payload := file("payload.json")
	for _, name := range []string{"SHA-256.sig", "SHA-384.sig"} {
		sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(file(name))))
		if err != nil || !keys[0].Verify(payload, sig) {
			t.Errorf("%s does not hold: %v", name, err)
		}
	}
	claim, err := ParsePayload(payload)
	if err != nil || claim.Reference != "index.docker.io/library/alpine" || !strings.HasPrefix(claim.Digest, "sha256:9b77ad1e") {
		t.Errorf("%+v, %v", claim, err)
	}
}
