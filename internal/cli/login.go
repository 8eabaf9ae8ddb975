package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/terminal"
	"berth/internal/client"
	"berth/internal/credentials"
)

const loginExample = `  berth login
  berth login registry.example:5000
  berth login -u gordon --password-stdin registry.example < token`

type loginFlags struct {
	user, password string
	stdin          bool
}

// maxPassword bounds what is read as a password.
const maxPassword = 64 << 10

func buildLogin(a *app, cmd *cobra.Command) {
	f := &loginFlags{}
	cmd.Flags().StringVarP(&f.user, "username", "u", "", "`NAME` who you are")
	cmd.Flags().StringVarP(&f.password, "password", "p", "", "`TEXT` password or token; others on this machine can see it")
	cmd.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from standard input")
	cmd.Args = atMost(1, "one registry")
	cmd.ValidArgsFunction = completeRegistries
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		registry := ""
		if len(args) == 1 {
			registry = args[0]
		}
		return a.login(cmd, f, credentials.Key(registry))
	}
}

func (a *app) login(cmd *cobra.Command, f *loginFlags, key string) error {
	if err := a.readPassword(cmd, f); err != nil {
		return err
	}
	config, err := credentials.Open()
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	known, err := config.For(ctx, key)
	if err != nil {
		a.warn("%v", err)
	}
	if f.user == "" && f.password == "" && !known.Empty() {
		fmt.Fprintf(a.out, "Authenticating with existing credentials%s\n", ofUser(known.Username))
		err := a.tryLogin(ctx, c, config, known, known)
		if err == nil || !refusedLogin(err) {
			return err
		}
		fmt.Fprintln(a.err, "Login did not succeed, error:", err)
	}
	auth, err := a.askLogin(f, key, known.Username)
	if err != nil {
		return err
	}
	return a.tryLogin(ctx, c, config, auth, credentials.Auth{})
}

func ofUser(name string) string {
	if name == "" {
		return " ..."
	}
	return " [Username: " + name + "]"
}

// refusedLogin reports whether a registry said no, as opposed to having said
// nothing.
func refusedLogin(err error) bool {
	var refusal *client.Refusal
	return errors.As(err, &refusal) && (refusal.Status == 401 || refusal.Status == 403 ||
		contains(refusal.Message, "unauthorized", "incorrect username or password", "denied"))
}

// readPassword takes the password from where the flags say.
func (a *app) readPassword(cmd *cobra.Command, f *loginFlags) error {
	given := cmd.Flags().Changed("password")
	switch {
	case given && f.stdin:
		return wrong("--password and --password-stdin contradict each other")
	case given:
		a.warn("others on this machine can see --password; use --password-stdin")
	case f.stdin && f.user == "":
		return wrong("--password-stdin needs --username")
	}
	if f.stdin {
		text, err := io.ReadAll(io.LimitReader(a.in, maxPassword))
		if err != nil {
			return err
		}
		f.password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	}
	if (given || f.stdin) && f.password == "" {
		return wrong("the password is empty")
	}
	return nil
}

// askLogin asks for what the flags did not give.
func (a *app) askLogin(f *loginFlags, key, known string) (credentials.Auth, error) {
	auth := credentials.Auth{Username: strings.TrimSpace(f.user), Password: f.password, ServerAddress: key}
	if auth.Username != "" && auth.Password != "" {
		return auth, nil
	}
	if !terminal.Is(a.in) {
		return auth, wrong("there is no terminal to ask on").WithHint("use --username and --password-stdin")
	}
	if auth.Username == "" {
		prompt := "Username: "
		if known != "" {
			prompt = "Username (" + known + "): "
		}
		fmt.Fprint(a.err, prompt)
		line, err := a.readLine()
		if auth.Username = strings.TrimSpace(line); auth.Username == "" && err == nil {
			auth.Username = known
		}
		if auth.Username == "" {
			return auth, wrong("no user name was given")
		}
	}
	if auth.Password == "" {
		text, err := a.askSecret("Password: ")
		if err != nil || text == "" {
			return auth, wrong("no password was given")
		}
		auth.Password = text
	}
	return auth, nil
}

// tryLogin asks the registry and remembers what it accepted, unless that is what
// was known already.
func (a *app) tryLogin(ctx context.Context, c *client.Client, config *credentials.Config, auth, known credentials.Auth) error {
	answer, err := c.RegistryLogin(ctx, client.Login{Username: auth.Username, Password: auth.Password,
		ServerAddress: auth.ServerAddress, IdentityToken: auth.IdentityToken})
	if err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", answer.IdentityToken
	}
	if auth != known {
		if err := a.remember(ctx, config, auth); err != nil {
			return err
		}
	}
	status := answer.Status
	if status == "" {
		status = "Login Succeeded"
	}
	_, err = fmt.Fprintln(a.out, status)
	return err
}

func (a *app) remember(ctx context.Context, config *credentials.Config, auth credentials.Auth) error {
	kept, err := config.Save(ctx, auth)
	if err == nil && kept.Helper == "" {
		fmt.Fprintf(a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"+
			"Configure a credential helper to remove this warning: \"credsStore\" in that file.\n\n", kept.File)
	}
	return err
}

func buildLogout(a *app, cmd *cobra.Command) {
	cmd.Args = atMost(1, "one registry")
	cmd.ValidArgsFunction = completeRegistries
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		registry := ""
		if len(args) == 1 {
			registry = args[0]
		}
		key := credentials.Key(registry)
		config, err := credentials.Open()
		if err != nil {
			return err
		}
		known, err := config.Erase(cmd.Context(), key)
		if err != nil {
			return err
		}
		if !known {
			fmt.Fprintf(a.out, "Not logged in to %s\n", key)
			return nil
		}
		fmt.Fprintf(a.out, "Removing login credentials for %s\n", key)
		return nil
	}
}

// completeRegistries completes the registries that somebody is logged in to.
func completeRegistries(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	config, err := credentials.Open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return without(config.Registries(), nil, word), cobra.ShellCompDirectiveNoFileComp
}
