package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"

	"berth/internal/fault"
)

// helperPrefix begins the names of credential helpers.
const helperPrefix = "docker-credential-"

// tokenUser is the user name that marks a secret as an identity token.
const tokenUser = "<token>"

// maxAnswer bounds what a helper may answer.
const maxAnswer = 4 << 20

// errUnknown says that a helper does not know a registry.
var errUnknown = errors.New("credentials not found in native keychain")

// runHelper runs one command of the helper protocol and returns what it printed.
func runHelper(ctx context.Context, name, verb string, input []byte) ([]byte, error) {
	if name == "" || strings.ContainsAny(name, "/\\\x00") {
		return nil, fault.New(fault.Invalid, "ask credential helper", "", "%q is no name of a program", name)
	}
	program := helperPrefix + name
	cmd := exec.CommandContext(ctx, program, verb)
	cmd.Stdin = bytes.NewReader(input)
	var out limited
	cmd.Stdout, cmd.Stderr = &out, os.Stderr // it may ask for a pass phrase there
	err := cmd.Run()
	if err == nil && out.over {
		err = errors.New("it answered more than anybody asked for")
	}
	if err == nil {
		return out.kept.Bytes(), nil
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fault.New(fault.NotFound, "ask credential helper", program, "it is not in PATH").
			WithHint("install it, or take credsStore and credHelpers out of %s", Path())
	case errors.As(err, &exit):
		text := strings.TrimSpace(out.kept.String())
		if text == errUnknown.Error() {
			return nil, errUnknown
		}
		if text != "" {
			err = errors.New(text)
		}
	}
	return nil, fault.New(fault.Unavailable, "ask credential helper", program+" "+verb, "%w", err)
}

// limited keeps what is written to it up to a bound. The buffer is no embedded
// field: its ReadFrom would pass the bound by.
type limited struct {
	kept bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.kept.Len()+len(p) > maxAnswer {
		l.over = true
		return 0, io.ErrShortWrite
	}
	return l.kept.Write(p)
}

// secret is what goes to and comes from helpers.
type secret struct {
	ServerURL string
	Username  string
	Secret    string
}

// helperGet returns an empty Auth for a registry that the helper does not know.
func helperGet(ctx context.Context, name, key string) (Auth, error) {
	text, err := runHelper(ctx, name, "get", []byte(key))
	if errors.Is(err, errUnknown) {
		return Auth{}, nil
	}
	if err != nil {
		return Auth{}, err
	}
	var s secret
	if err := json.Unmarshal(text, &s); err != nil {
		return Auth{}, fault.New(fault.Invalid, "ask credential helper", helperPrefix+name, "its answer is not JSON")
	}
	if s.Username == tokenUser {
		return Auth{IdentityToken: s.Secret, ServerAddress: key}, nil
	}
	return Auth{Username: s.Username, Password: s.Secret, ServerAddress: key}, nil
}

func helperStore(ctx context.Context, name, key string, a Auth) error {
	s := secret{ServerURL: key, Username: a.Username, Secret: a.Password}
	if a.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, a.IdentityToken
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fault.New(fault.Internal, "keep credentials", key, "%w", err)
	}
	_, err = runHelper(ctx, name, "store", text)
	return err
}

func helperErase(ctx context.Context, name, key string) (known bool, err error) {
	_, err = runHelper(ctx, name, "erase", []byte(key))
	if errors.Is(err, errUnknown) {
		return false, nil
	}
	return err == nil, err
}

// helperList returns the registries that a helper knows, with the user names.
func helperList(ctx context.Context, name string) (map[string]string, error) {
	text, err := runHelper(ctx, name, "list", nil)
	if errors.Is(err, errUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var listed map[string]string
	if err := json.Unmarshal(text, &listed); err != nil {
		return nil, fault.New(fault.Invalid, "ask credential helper", helperPrefix+name, "its answer is not JSON")
	}
	return listed, nil
}
