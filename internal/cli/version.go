package cli

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/version"
)

// clientVersion is what this program says about itself.
type clientVersion struct {
	Version   string
	GitCommit string `json:",omitempty"`
	GoVersion string
	Os        string
	Arch      string
}

func ownVersion() clientVersion {
	return clientVersion{Version: version.String(), GitCommit: version.Revision(), GoVersion: runtime.Version(),
		Os: runtime.GOOS, Arch: runtime.GOARCH}
}

func (a *app) printShortVersion() error {
	_, err := fmt.Fprintf(a.out, "berth version %s\n", version.String())
	return err
}

func buildVersion(a *app, cmd *cobra.Command) {
	var clientOnly bool
	var layout string
	cmd.Flags().BoolVar(&clientOnly, "client", false, "do not ask an engine")
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json or a Go template")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		var server json.RawMessage
		var failure error
		if !clientOnly {
			if c, err := a.engine(); err != nil {
				failure = err
			} else if server, failure = c.Version(cmd.Context()); failure != nil {
				server = nil
			}
		}
		if err := a.printVersion(t, server); err != nil {
			return err
		}
		return failure
	}
}

func (a *app) printVersion(t *format.Template, server json.RawMessage) error {
	own := ownVersion()
	if t.Kind != format.Table {
		all, err := json.Marshal(struct {
			Client clientVersion
			Server json.RawMessage
		}{own, server})
		if err != nil {
			return err
		}
		return a.printValues(t, all)
	}
	var b strings.Builder
	section(&b, "Client", [][2]string{{"Version", own.Version}, {"Git commit", shortRevision(own.GitCommit)},
		{"Go version", own.GoVersion}, {"OS/Arch", own.Os + "/" + own.Arch}})
	if server != nil {
		b.WriteByte('\n')
		describeServer(&b, server)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func describeServer(b *strings.Builder, raw json.RawMessage) {
	var s struct {
		Platform                                                                          struct{ Name string }
		Version, ApiVersion, MinAPIVersion, GitCommit, GoVersion, Os, Arch, KernelVersion string
		Components                                                                        []struct {
			Name, Version string
		}
	}
	if json.Unmarshal(raw, &s) != nil {
		return
	}
	api := s.ApiVersion
	if s.MinAPIVersion != "" {
		api += " (minimum " + s.MinAPIVersion + ")"
	}
	section(b, "Engine", [][2]string{{"Name", s.Platform.Name}, {"Version", s.Version}, {"API version", api},
		{"Git commit", shortRevision(s.GitCommit)}, {"Go version", s.GoVersion}, {"OS/Arch", s.Os + "/" + s.Arch},
		{"Kernel", s.KernelVersion}})
	for _, c := range s.Components {
		if c.Name != "Engine" {
			line, _, _ := strings.Cut(c.Version, "\n")
			section(b, "", [][2]string{{c.Name, line}})
		}
	}
}

func shortRevision(revision string) string { return format.Truncate(revision, 12) }

// section writes a heading and aligned lines; lines without a value are left out.
func section(b *strings.Builder, heading string, lines [][2]string) {
	if heading != "" {
		b.WriteString(heading + "\n")
	}
	for _, line := range lines {
		if line[1] != "" {
			fmt.Fprintf(b, "  %-16s %s\n", line[0], line[1])
		}
	}
}
