package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

const psExample = `  berth ps -a
  berth ps -q --filter status=exited
  berth ps --format 'table {{.Names}}\t{{.Status}}'`

type psFlags struct {
	all, quiet, noTrunc, size, latest bool
	last                              int
	filter                            []string
	format                            string
}

func buildPs(a *app, cmd *cobra.Command) {
	f := &psFlags{}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "show stopped containers too")
	spec.List(fs, &f.filter, "filter", "f", "`NAME=VALUE` show those with it: name, id, status, label, ancestor ...")
	fs.StringVar(&f.format, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	fs.IntVarP(&f.last, "last", "n", -1, "`N` show this many, newest first, stopped ones too")
	fs.BoolVarP(&f.latest, "latest", "l", false, "show the one made last, even stopped")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten anything")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print ids alone")
	fs.BoolVarP(&f.size, "size", "s", false, "show what each has written")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, f) }
}

func (a *app) ps(cmd *cobra.Command, f *psFlags) error {
	filters, err := parseFilters(f.filter)
	if err != nil {
		return err
	}
	t, err := format.Parse(f.format)
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	o := client.ListOptions{All: f.all, Size: f.size || t.Kind != format.Table && strings.Contains(f.format, ".Size"), Filters: filters, Brief: f.format == ""}
	if f.last > 0 {
		o.Limit = f.last
	}
	if f.latest {
		o.Limit = 1
	}
	list, err := c.ContainerList(cmd.Context(), o)
	if err != nil {
		return err
	}
	if f.quiet && f.format == "" {
		return a.printIDs(list, f.noTrunc)
	}
	rows := make([]format.Row, len(list))
	now := time.Now()
	for i := range list {
		rows[i] = containerRow(&list[i], now, f.noTrunc)
	}
	return a.containerTable(f).Write(a.out, t, rows)
}

func (a *app) printIDs(list []client.Summary, full bool) error {
	var b strings.Builder
	for _, s := range list {
		if !full {
			s.ID = format.ShortID(s.ID)
		}
		b.WriteString(s.ID + "\n")
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

// parseFilters reads repeated NAME=VALUE arguments of --filter.
func parseFilters(args []string) (client.Filters, error) {
	filters := client.Filters{}
	for _, text := range args {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, wrong("--filter %q is not NAME=VALUE", text)
		}
		filters.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
	}
	return filters, nil
}

// tableWidth returns the width to which tables are cut: the terminal's, or none.
func (a *app) tableWidth(noTrunc bool) int {
	if t := terminalOf(a.out); t != nil && !noTrunc {
		if _, columns, ok := terminal.Size(t); ok {
			return int(columns)
		}
	}
	return 0
}

func (a *app) containerTable(f *psFlags) format.List {
	l := format.List{Width: a.tableWidth(f.noTrunc), Columns: []format.Column{
		{Field: "ID", Header: "CONTAINER ID"}, {Field: "Image", Header: "IMAGE", Flexible: true},
		{Field: "Command", Header: "COMMAND", Flexible: true}, {Field: "RunningFor", Header: "CREATED"},
		{Field: "Status", Header: "STATUS"}, {Field: "Ports", Header: "PORTS", Flexible: true}, {Field: "Names", Header: "NAMES"}}}
	if f.size {
		l.Columns = append(l.Columns, format.Column{Field: "Size", Header: "SIZE"})
	}
	l.Headers = map[string]string{"CreatedAt": "CREATED AT", "State": "STATE", "Labels": "LABELS", "Mounts": "MOUNTS",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Size": "SIZE", "Platform": "PLATFORM"}
	for _, c := range l.Columns {
		l.Headers[c.Field] = c.Header
	}
	return l
}

func containerRow(s *client.Summary, now time.Time, full bool) format.Row {
	id, command, image := s.ID, s.Command, s.Image
	if !full {
		id, command = format.ShortID(id), format.Ellipsis(command, 20)
		if strings.HasPrefix(image, "sha256:") {
			image = format.ShortID(image)
		}
	}
	if image == "" {
		image = "<no image>"
	}
	volumes := 0
	var mounts []string
	for _, m := range s.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !full {
			name = format.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
		if m.Type == "volume" && m.Driver == "local" {
			volumes++
		}
	}
	var networks []string
	if s.NetworkSettings != nil {
		for name := range s.NetworkSettings.Networks {
			networks = append(networks, name)
		}
		slices.Sort(networks)
	}
	size := format.Bytes(s.SizeRw)
	if s.SizeRootFs > 0 {
		size += " (virtual " + format.Bytes(s.SizeRootFs) + ")"
	}
	return format.Row{Labels: s.Labels, Values: map[string]string{
		"ID": id, "Image": image, "Command": strconv.Quote(command), "RunningFor": format.Since(s.Created, now),
		"CreatedAt": time.Unix(s.Created, 0).Format("2006-01-02 15:04:05 -0700 MST"), "Status": s.Status, "State": s.State,
		"Ports": formatPorts(s.Ports), "Names": containerNames(s), "Labels": formatLabels(s.Labels),
		"Mounts": strings.Join(mounts, ","), "LocalVolumes": strconv.Itoa(volumes), "Networks": strings.Join(networks, ","),
		"Size": size, "Platform": ""}}
}

// containerName returns the name of a listed container without links to it.
func containerName(s client.Summary) string {
	for _, name := range s.Names {
		if name = trimSlash(name); !strings.Contains(name, "/") {
			return name
		}
	}
	return ""
}

func containerNames(s *client.Summary) string {
	names := make([]string, len(s.Names))
	for i, name := range s.Names {
		names[i] = trimSlash(name)
	}
	return strings.Join(names, ",")
}

func formatLabels(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for name, value := range labels {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// formatPorts writes a container's ports as docker does: neighbouring ports of
// one address as a range.
func formatPorts(ports []client.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, comparePorts)
	var parts []string
	for i := 0; i < len(ports); {
		n := 1
		for i+n < len(ports) && continues(ports[i+n-1], ports[i+n]) {
			n++
		}
		parts = append(parts, formatPort(ports[i], uint16(n-1)))
		i += n
	}
	return strings.Join(parts, ", ")
}

func comparePorts(a, b client.PortSummary) int {
	for _, d := range []int{strings.Compare(a.Type, b.Type), strings.Compare(a.IP, b.IP),
		int(a.PrivatePort) - int(b.PrivatePort), int(a.PublicPort) - int(b.PublicPort)} {
		if d != 0 {
			return d
		}
	}
	return 0
}

// continues reports whether b is the port after a on both sides.
func continues(a, b client.PortSummary) bool {
	return a.Type == b.Type && a.IP == b.IP && b.PrivatePort == a.PrivatePort+1 &&
		(a.PublicPort == 0 && b.PublicPort == 0 || a.PublicPort != 0 && b.PublicPort == a.PublicPort+1)
}

func formatPort(p client.PortSummary, more uint16) string {
	inside := portSpan(p.PrivatePort, more) + "/" + p.Type
	if p.PublicPort == 0 {
		return inside
	}
	outside := portSpan(p.PublicPort, more) + "->" + inside
	if p.IP == "" {
		return outside
	}
	if strings.Contains(p.IP, ":") {
		return "[" + p.IP + "]:" + outside
	}
	return p.IP + ":" + outside
}

func portSpan(first, more uint16) string {
	if more == 0 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, first+more)
}
