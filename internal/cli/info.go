package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
)

func buildInfo(a *app, cmd *cobra.Command) {
	var layout string
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json or a Go template")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		raw, err := c.Info(cmd.Context())
		if err != nil {
			return err
		}
		if t.Kind != format.Table {
			return a.printValues(t, raw)
		}
		return a.printInfo(raw)
	}
}

// engineInfo is the part of an engine's information that is shown to a person.
type engineInfo struct {
	Name, ServerVersion, Driver, LoggingDriver, CgroupDriver, CgroupVersion string
	KernelVersion, OperatingSystem, OSType, Architecture                    string
	DockerRootDir, DefaultRuntime                                           string
	DriverStatus                                                            [][2]string
	Containers, ContainersRunning, ContainersPaused, ContainersStopped      int
	Images, NCPU                                                            int
	MemTotal                                                                int64
	Runtimes                                                                map[string]json.RawMessage
	SecurityOptions, Labels, Warnings                                       []string
}

func (a *app) printInfo(raw json.RawMessage) error {
	var i engineInfo
	if err := json.Unmarshal(raw, &i); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	states := fmt.Sprintf("%d: %d running, %d paused, %d stopped", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped)
	var b strings.Builder
	section(&b, "Engine", [][2]string{{"Name", i.Name}, {"Version", i.ServerVersion}, {"Containers", states},
		{"Images", fmt.Sprint(i.Images)}, {"Data", i.DockerRootDir}, {"Storage", storage(i)},
		{"Logs", i.LoggingDriver}, {"Runtimes", runtimes(i)}, {"Labels", strings.Join(i.Labels, ", ")}})
	cgroups := i.CgroupDriver
	if i.CgroupVersion != "" {
		cgroups += ", version " + i.CgroupVersion
	}
	b.WriteByte('\n')
	section(&b, "Machine", [][2]string{{"System", i.OperatingSystem}, {"Kernel", i.KernelVersion},
		{"Architecture", strings.Trim(i.OSType+"/"+i.Architecture, "/")}, {"Processors", fmt.Sprint(i.NCPU)},
		{"Memory", format.BinaryBytes(i.MemTotal)}, {"Cgroups", cgroups}, {"Security", strings.Join(i.SecurityOptions, ", ")}})
	if _, err := fmt.Fprint(a.out, b.String()); err != nil {
		return err
	}
	for _, warning := range i.Warnings {
		fmt.Fprintln(a.err, warning)
	}
	return nil
}

func storage(i engineInfo) string {
	parts := []string{i.Driver}
	for _, pair := range i.DriverStatus {
		parts = append(parts, pair[0]+" "+pair[1])
	}
	return strings.Join(parts, ", ")
}

func runtimes(i engineInfo) string {
	var names []string
	for name := range i.Runtimes {
		if name == i.DefaultRuntime {
			name += " (default)"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
