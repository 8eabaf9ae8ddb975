package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/signature/cosign"
)

const verifyExample = `  berth image verify app:1
  berth image verify --key cosign.pub registry.example/team/app:1`

const signExample = `  berth image keygen
  berth image sign --key cosign.key registry.example/team/app:1`

// maxKeyFile bounds a key file.
const maxKeyFile = 64 << 10

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKeyFile+1))
}

func buildVerify(a *app, cmd *cobra.Command) {
	var keys []string
	var quiet bool
	spec.List(cmd.Flags(), &keys, "key", "", "`FILE` also want a signature by this public key at the registry")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names alone")
	cmd.Args = atLeast(1, "an image")
	cmd.ValidArgsFunction = a.completeImages(-1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		texts, err := publicKeys(keys)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		failed := false
		for _, ref := range args {
			if err := a.verify(cmd.Context(), c, ref, texts, quiet); err != nil {
				a.complain(err)
				failed = true
				continue
			}
			if quiet {
				fmt.Fprintln(a.out, ref)
			}
		}
		if failed {
			return &exit{codeFailed, nil}
		}
		return nil
	}
}

// publicKeys reads key files and looks that they hold what the engine can use.
func publicKeys(paths []string) ([]string, error) {
	var texts []string
	for _, path := range paths {
		text, err := readKeyFile(path)
		if err != nil {
			return nil, err
		}
		if _, err := cosign.ParsePublicKeys(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		texts = append(texts, string(text))
	}
	return texts, nil
}

// signatureID marks the message in which an engine says that a signature holds.
const signatureID = "signature"

func (a *app) verify(ctx context.Context, c *client.Client, ref string, keys []string, quiet bool) error {
	auth := ""
	if len(keys) > 0 {
		auth = a.authOrNobody(ctx, ref)
	}
	show := a.display(a.out, quiet)
	checked := false
	err := c.ImageVerify(ctx, ref, auth, keys, func(m client.Progress) {
		checked = checked || m.ID == signatureID
		show.Update(m)
	})
	show.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if len(keys) > 0 && !checked { // silence is no proof
		return wrong("%s: the engine does not say that the signature was checked", ref).WithHint("it is older than this command; take a newer one")
	}
	return nil
}

func buildSign(a *app, cmd *cobra.Command) {
	var key string
	cmd.Flags().StringVar(&key, "key", "", "`FILE` sign with this private key; it does not leave this machine")
	cmd.Args = exactly(1, "one image, which its registry has")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if key == "" {
			return wrong("no key was named").WithHint("name one with --key FILE; 'berth image keygen' makes one")
		}
		return a.sign(cmd.Context(), args[0], key)
	}
}

// sign makes the signature here and has the engine send it to the registry. What
// is signed is what the registry has now under the name.
func (a *app) sign(ctx context.Context, ref, keyPath string) error {
	text, err := readKeyFile(keyPath)
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	auth, err := authFor(ctx, ref)
	if err != nil {
		return err
	}
	there, err := c.DistributionInspect(ctx, withTag(ref), auth)
	if err != nil {
		return withLoginHint(ref, fmt.Errorf("look at %s in its registry: %w", ref, err))
	}
	private, err := cosign.ParsePrivateKey(text, func() ([]byte, error) { return a.keyPassword("Password of "+keyPath+": ", false) })
	if err != nil {
		return fmt.Errorf("%s: %w", keyPath, err)
	}
	d := there.Descriptor
	whole, _ := client.SplitReference(canonicalName(ref))
	if i := strings.LastIndexByte(whole, ':'); i > strings.LastIndexByte(whole, '/') { // of NAME:TAG@DIGEST
		whole = whole[:i]
	}
	made, err := cosign.Sign(private, whole, cosign.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	if err != nil {
		return err
	}
	if err := c.ImageAttach(ctx, whole+"@"+d.Digest, auth, made.Manifest, made.Blobs); err != nil {
		return withLoginHint(ref, err)
	}
	_, err = fmt.Fprintf(a.out, "%s@%s\n", whole, d.Digest)
	return err
}

// keyPassword returns the password of a key: from the environment, from the
// terminal, or from what standard input holds.
func (a *app) keyPassword(prompt string, twice bool) ([]byte, error) {
	for _, name := range []string{"BERTH_KEY_PASSWORD", "COSIGN_PASSWORD"} {
		if value, ok := os.LookupEnv(name); ok {
			return []byte(value), nil
		}
	}
	if !a.inputIsTerminal() {
		text, err := io.ReadAll(io.LimitReader(a.in, maxPassword))
		if err == nil && len(text) == 0 {
			err = wrong("the key needs a password").WithHint("set BERTH_KEY_PASSWORD, or write it to standard input")
		}
		return []byte(strings.TrimRight(string(text), "\r\n")), err
	}
	first, err := a.askSecret(prompt)
	if err != nil {
		return nil, err
	}
	if twice {
		second, err := a.askSecret("Once more: ")
		if err != nil {
			return nil, err
		}
		if first != second {
			return nil, wrong("the two passwords differ")
		}
	}
	return []byte(first), nil
}

func buildKeygen(a *app, cmd *cobra.Command) {
	var kind, prefix string
	cmd.Flags().StringVar(&kind, "type", cosign.KindP256, "`KIND` "+strings.Join(cosign.Kinds(), ", "))
	cmd.Flags().StringVarP(&prefix, "output", "o", "cosign", "`PREFIX` write PREFIX.key and PREFIX.pub")
	cmd.Args = exactly(0, "no arguments")
	if a.completing {
		_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(cosign.Kinds(), cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		private, public := prefix+".key", prefix+".pub"
		for _, path := range []string{private, public} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				return wrong("%s is there already", path).WithHint("a lost key cannot be had back: move it away, or use another --output")
			}
		}
		k, err := cosign.GenerateKey(kind)
		if err != nil {
			return err
		}
		password, err := a.keyPassword("Password for the new key: ", true)
		if err != nil {
			return err
		}
		secret, err := k.Encrypt(password)
		if err != nil {
			return err
		}
		shown, err := k.Public()
		if err != nil {
			return err
		}
		write := func(path string, mode os.FileMode, text []byte) error {
			return replaceFile(path, mode, func(w io.Writer) error { _, err := w.Write(text); return err })
		}
		if err := write(private, 0o600, secret); err != nil {
			return err
		}
		if err := write(public, 0o644, shown.PEM()); err != nil {
			return err
		}
		fmt.Fprintf(a.err, "Private key written to %s\nPublic key written to %s\n", private, public)
		return nil
	}
}

func buildReferrers(a *app, cmd *cobra.Command) {
	var kind, layout string
	var quiet bool
	cmd.Flags().StringVar(&kind, "artifact-type", "", "`TYPE` list those of this type alone")
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests alone")
	cmd.Args = exactly(1, "one image")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		list, err := c.ImageReferrers(cmd.Context(), withTag(args[0]), kind, a.authOrNobody(cmd.Context(), args[0]))
		if err != nil {
			return withLoginHint(args[0], err)
		}
		rows := make([]format.Row, len(list))
		for i, d := range list {
			if quiet && layout == "" {
				fmt.Fprintln(a.out, d.Digest)
			}
			artifact := d.ArtifactType
			if artifact == "" {
				artifact = d.MediaType
			}
			rows[i] = format.Row{Labels: d.Annotations, Values: map[string]string{"Digest": d.Digest, "ArtifactType": artifact,
				"Size": format.Bytes(d.Size), "Created": d.Annotations["org.opencontainers.image.created"], "MediaType": d.MediaType}}
		}
		if quiet && layout == "" {
			return nil
		}
		return a.listOf(false, "Digest=DIGEST ArtifactType~=ARTIFACT_TYPE Size=SIZE Created=CREATED", "MediaType=MEDIA_TYPE").Write(a.out, t, rows)
	}
}
