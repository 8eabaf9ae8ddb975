package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/spec"
	"berth/internal/client"
)

// completionPatience bounds how long a shell waits for names.
const completionPatience = 2 * time.Second

// completer is what cobra asks for the words that may come next.
type completer = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

const completionExample = `  bash:  berth completion bash > /etc/bash_completion.d/berth
  zsh:   berth completion zsh > "${fpath[1]}/_berth"
  fish:  berth completion fish > ~/.config/fish/completions/berth.fish`

func (a *app) completionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "completion bash|zsh|fish", Short: "Print a script that completes commands in a shell",
		Example: completionExample, DisableFlagsInUseLine: true, ValidArgs: []string{"bash", "zsh", "fish"},
		Args: exactly(1, "the name of a shell: bash, zsh or fish")}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return cmd.Root().GenBashCompletionV2(a.out, true)
		case "zsh":
			return cmd.Root().GenZshCompletion(a.out)
		case "fish":
			return cmd.Root().GenFishCompletion(a.out, true)
		}
		return wrong("there is no completion for %q", args[0]).WithHint("use bash, zsh or fish")
	}
	addHelpFlag(cmd, "h")
	return cmd
}

// names fetches names from an engine that already runs.
func (a *app) names(fetch lister) []string {
	c, err := a.engine()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	names, err := fetch(ctx, c)
	if err != nil {
		return nil
	}
	return names
}

func without(names, taken []string, word string) []string {
	var out []string
next:
	for _, name := range names {
		if !strings.HasPrefix(name, word) {
			continue
		}
		for _, t := range taken {
			if t == name {
				continue next
			}
		}
		out = append(out, name)
	}
	return out
}

func (a *app) containerNames(states []string) []string {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		filters := client.Filters{}
		for _, state := range states {
			filters.Add("status", state)
		}
		list, err := c.ContainerList(ctx, client.ListOptions{All: true, Filters: filters})
		var names []string
		for _, s := range list {
			names = append(names, containerName(s))
		}
		return names, err
	})
}

// completeContainers completes names of containers in the given states, in any
// when there are none.
func (a *app) completeContainers(states ...string) completer {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if cmd.Name() == "exec" && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return without(a.containerNames(states), args, word), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) imageNames() []string {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.ImageList(ctx, false, false, nil)
		var names []string
		for _, s := range list {
			for _, ref := range s.RepoTags {
				names = append(names, strings.TrimSuffix(ref, ":latest"))
			}
		}
		return names, err
	})
}

// completeImages completes names of images as the first n arguments, as all of
// them when n is negative.
func (a *app) completeImages(n int) completer {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if n >= 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return without(a.imageNames(), args, word), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeAnything(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return without(append(a.containerNames(nil), a.imageNames()...), args, word), cobra.ShellCompDirectiveNoFileComp
}

// completeRunFlags completes the values of run's flags that have a fixed choice.
func (a *app) completeRunFlags(cmd *cobra.Command) {
	if !a.completing {
		return
	}
	for flag, words := range map[string][]string{
		"pull":       {spec.PullMissing, spec.PullAlways, spec.PullNever},
		"restart":    {"no", "on-failure", "always", "unless-stopped"},
		"network":    {"bridge", "host", "none"},
		"log-driver": {"json-file", "local", "none", "syslog"},
		"attach":     {"stdin", "stdout", "stderr"},
		"ipc":        {"private", "shareable", "host", "none"},
		"pid":        {"host"},
		"uts":        {"host"},
		"userns":     {"host"},
		"cgroupns":   {"private", "host"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = cmd.RegisterFlagCompletionFunc("volumes-from", a.completeContainers())
}

// completeContainer completes the name of one container as the first argument.
func (a *app) completeContainer(states ...string) completer {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return without(a.containerNames(states), nil, word), cobra.ShellCompDirectiveNoFileComp
	}
}

func containerNamesOf(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.ContainerList(ctx, client.ListOptions{All: true})
	var names []string
	for _, s := range list {
		names = append(names, containerName(s))
	}
	return names, err
}

func networkNamesOf(ctx context.Context, c *client.Client) ([]string, error) {
	list, err := c.NetworkList(ctx, nil)
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names, err
}

func volumeNamesOf(ctx context.Context, c *client.Client) ([]string, error) {
	list, _, err := c.VolumeList(ctx, nil)
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names, err
}

// completeNetworks completes networks as all arguments, and with a container's
// name to follow as the first one.
func (a *app) completeNetworks(container bool) completer {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		switch {
		case container && len(args) == 1:
			return without(a.containerNames(nil), nil, word), cobra.ShellCompDirectiveNoFileComp
		case container && len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return without(a.names(networkNamesOf), args, word), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeVolumes(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return without(a.names(volumeNamesOf), args, word), cobra.ShellCompDirectiveNoFileComp
}
