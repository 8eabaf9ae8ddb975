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
	"berth/internal/client"
	"berth/internal/wire"
)

const imagesExample = `  berth images
  berth images --format '{{.Repository}}:{{.Tag}} {{.Size}}' alpine`

type imagesFlags struct {
	all, digests, noTrunc, quiet bool
	filter                       []string
	format                       string
}

func buildImages(a *app, cmd *cobra.Command) {
	f := &imagesFlags{}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "show images that others were built from too")
	fs.BoolVar(&f.digests, "digests", false, "show digests")
	spec.List(fs, &f.filter, "filter", "f", "`NAME=VALUE` show those with it: reference, dangling, label, before, since")
	fs.StringVar(&f.format, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten anything")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print ids alone")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return badUsage(cmd, "%s takes one name at most", cmd.CommandPath())
		}
		return nil
	}
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.images(cmd, f, args) }
}

func (a *app) images(cmd *cobra.Command, f *imagesFlags, args []string) error {
	filters, err := parseFilters(f.filter)
	if err != nil {
		return err
	}
	for _, name := range args {
		filters.Add("reference", name)
	}
	t, err := format.Parse(f.format)
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	list, err := c.ImageList(cmd.Context(), f.all, f.digests, filters)
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b client.ImageSummary) int { return int(min(max(b.Created-a.Created, -1), 1)) })
	var rows []format.Row
	now := time.Now()
	for i := range list {
		rows = append(rows, imageRows(&list[i], f, now)...)
	}
	if f.quiet && f.format == "" {
		return a.printImageIDs(rows)
	}
	return a.imageTable(f).Write(a.out, t, rows)
}

func (a *app) printImageIDs(rows []format.Row) error {
	var b strings.Builder
	last := ""
	for _, row := range rows {
		if id := row.Values["ID"]; id != last {
			b.WriteString(id + "\n")
			last = id
		}
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}

func (a *app) imageTable(f *imagesFlags) format.List {
	l := format.List{Width: a.tableWidth(f.noTrunc), Columns: []format.Column{
		{Field: "Repository", Header: "REPOSITORY", Flexible: true}, {Field: "Tag", Header: "TAG"}}}
	if f.digests {
		l.Columns = append(l.Columns, format.Column{Field: "Digest", Header: "DIGEST"})
	}
	l.Columns = append(l.Columns, format.Column{Field: "ID", Header: "IMAGE ID"},
		format.Column{Field: "CreatedSince", Header: "CREATED"}, format.Column{Field: "Size", Header: "SIZE"})
	l.Headers = map[string]string{"CreatedAt": "CREATED AT", "Digest": "DIGEST", "Containers": "CONTAINERS",
		"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "VIRTUAL SIZE"}
	for _, c := range l.Columns {
		l.Headers[c.Field] = c.Header
	}
	return l
}

// imageRows returns one row for each name of an image.
func imageRows(s *client.ImageSummary, f *imagesFlags, now time.Time) []format.Row {
	id := s.ID
	if !f.noTrunc {
		id = format.ShortID(id)
	}
	base := map[string]string{"ID": id, "CreatedSince": format.Since(s.Created, now), "Size": format.Bytes(s.Size),
		"CreatedAt":  time.Unix(s.Created, 0).Format("2006-01-02 15:04:05 -0700 MST"),
		"Containers": countOrNA(s.Containers), "SharedSize": sizeOrNA(s.SharedSize), "UniqueSize": "N/A",
		"VirtualSize": format.Bytes(s.Size)}
	if s.SharedSize >= 0 && s.Size >= s.SharedSize {
		base["UniqueSize"] = format.Bytes(s.Size - s.SharedSize)
	}
	var rows []format.Row
	add := func(repository, tag, digest string) {
		values := map[string]string{"Repository": repository, "Tag": tag, "Digest": digest}
		for name, value := range base {
			values[name] = value
		}
		rows = append(rows, format.Row{Values: values, Labels: s.Labels})
	}
	digests := map[string]string{}
	for _, ref := range s.RepoDigests {
		name, digest, _ := strings.Cut(ref, "@")
		digests[name] = digest
	}
	for _, ref := range s.RepoTags {
		if ref == "<none>:<none>" {
			continue
		}
		name, tag := client.SplitReference(ref)
		add(name, tag, orNone(digests[name]))
	}
	if rows != nil {
		return rows
	}
	for _, ref := range s.RepoDigests {
		name, digest, _ := strings.Cut(ref, "@")
		add(orNone(name), "<none>", orNone(digest))
		return rows
	}
	add("<none>", "<none>", "<none>")
	return rows
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func countOrNA(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return strconv.FormatInt(n, 10)
}

func sizeOrNA(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return format.Bytes(n)
}

func buildRmi(a *app, cmd *cobra.Command) {
	var force, noPrune bool
	var platform string
	var f planFlags
	f.register(cmd)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove it even if containers use it or it has other names")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "keep unnamed images that it was built from")
	cmd.Flags().StringVar(&platform, "platform", "", "`OS/ARCH` remove this platform alone")
	cmd.Args = atLeast(1, "an image")
	cmd.ValidArgsFunction = a.completeImages(-1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if planned, err := f.wanted(); planned || err != nil {
			if platform != "" {
				return wrong("--platform has no dry run")
			}
			return a.planRemoval(cmd, &f, wire.PlanRemoval{Kind: wire.PlanImages, Refs: args, Force: force, NoPrune: noPrune}, nil, err)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		failed := false
		for _, ref := range args {
			done, err := c.ImageRemove(cmd.Context(), ref, force, noPrune, platform)
			for _, step := range done {
				if step.Deleted != "" {
					fmt.Fprintln(a.out, "Deleted:", step.Deleted)
				} else {
					fmt.Fprintln(a.out, "Untagged:", step.Untagged)
				}
			}
			if err != nil {
				a.complain(err)
				failed = failed || !force || !isMissing(err)
			}
		}
		if failed {
			return &exit{codeFailed, nil}
		}
		return nil
	}
}
