package cli

import (
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"berth/internal/client"
)

// buildRegistry hands everything to the program that has the registry in it, the
// engine's: this process becomes that one.
func buildRegistry(a *app, cmd *cobra.Command) {
	cmd.DisableFlagParsing = true
	cmd.Args = cobra.ArbitraryArgs
	if a.completing {
		cmd.ValidArgs = []string{"serve", "gc"}
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		program, err := client.FindEngine()
		if err != nil {
			return err
		}
		return syscall.Exec(program, append([]string{program, "registry"}, args...), os.Environ())
	}
}
