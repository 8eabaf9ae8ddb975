package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
)

type historyFlags struct {
	human, noTrunc, quiet bool
	format, platform      string
}

func buildHistory(a *app, cmd *cobra.Command) {
	f := &historyFlags{}
	cmd.Flags().StringVar(&f.format, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	// Behind history, -H is docker's --human. A flag of the same name keeps the
	// global one, whose short form it is elsewhere, away.
	cmd.Flags().StringVar(&a.host, "host", a.host, "`ENGINE` talk to it")
	_ = cmd.Flags().MarkHidden("host")
	cmd.Flags().BoolVarP(&f.human, "human", "H", true, "print sizes and dates for people")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print ids alone")
	cmd.Flags().StringVar(&f.platform, "platform", "", "`OS/ARCH` show the image for this platform")
	cmd.Args = exactly(1, "one image")
	cmd.ValidArgsFunction = a.completeImages(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(f.format)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		items, err := c.ImageHistory(cmd.Context(), args[0], f.platform)
		if err != nil {
			return err
		}
		rows := make([]format.Row, len(items))
		now := time.Now()
		for i := range items {
			rows[i] = historyRow(&items[i], f, now)
		}
		if f.quiet && f.format == "" {
			for _, row := range rows {
				fmt.Fprintln(a.out, row.Values["ID"])
			}
			return nil
		}
		return a.listOf(f.noTrunc, "ID=IMAGE CreatedSince=CREATED CreatedBy~=CREATED_BY Size=SIZE Comment~=COMMENT",
			"CreatedAt=CREATED_AT").Write(a.out, t, rows)
	}
}

func historyRow(h *client.HistoryItem, f *historyFlags, now time.Time) format.Row {
	id, by := h.ID, strings.ReplaceAll(h.CreatedBy, "\t", " ")
	if !f.noTrunc {
		id, by = format.ShortID(id), format.Ellipsis(by, 45)
		if strings.HasPrefix(h.ID, "<") {
			id = h.ID
		}
	}
	at := time.Unix(h.Created, 0).Format(time.RFC3339)
	since, size := format.Since(h.Created, now), format.Bytes(h.Size)
	if !f.human {
		since, size = at, strconv.FormatInt(h.Size, 10)
	}
	return format.Row{Values: map[string]string{"ID": id, "CreatedSince": since, "CreatedAt": at, "CreatedBy": by,
		"Size": size, "Comment": h.Comment}}
}

// listOf describes a table in few words: FIELD=HEADER for each column, ~ after a
// field that may be cut on a narrow terminal, _ for a space within a header; more
// are fields that templates may use beside the columns.
func (a *app) listOf(noTrunc bool, columns, more string) format.List {
	l := format.List{Width: a.tableWidth(noTrunc), Headers: map[string]string{}}
	for word := range strings.FieldsSeq(columns) {
		field, header, _ := strings.Cut(word, "=")
		field, flexible := strings.CutSuffix(field, "~")
		header = strings.ReplaceAll(header, "_", " ")
		l.Columns = append(l.Columns, format.Column{Field: field, Header: header, Flexible: flexible})
		l.Headers[field] = header
	}
	for word := range strings.FieldsSeq(more) {
		field, header, _ := strings.Cut(word, "=")
		l.Headers[field] = strings.ReplaceAll(header, "_", " ")
	}
	return l
}

func buildSearch(a *app, cmd *cobra.Command) {
	var filter []string
	var layout, limit string
	var noTrunc bool
	spec.List(cmd.Flags(), &filter, "filter", "f", "`NAME=VALUE` show those with it: stars, is-official")
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().StringVar(&limit, "limit", "", "`N` show no more (25)")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.Args = exactly(1, "one term")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filters, err := parseFilters(filter)
		if err != nil {
			return err
		}
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		found, err := c.ImageSearch(cmd.Context(), args[0], limit, filters, a.authOrNobody(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		rows := make([]format.Row, len(found))
		for i, r := range found {
			official, description := "", strings.NewReplacer("\n", " ", "\r", " ", "\t", " ").Replace(r.Description)
			if r.IsOfficial {
				official = "[OK]"
			}
			if !noTrunc {
				description = format.Ellipsis(description, 45)
			}
			rows[i] = format.Row{Values: map[string]string{"Name": r.Name, "Description": description,
				"StarCount": strconv.Itoa(r.StarCount), "IsOfficial": official}}
		}
		return a.listOf(noTrunc, "Name=NAME Description~=DESCRIPTION StarCount=STARS IsOfficial=OFFICIAL", "").Write(a.out, t, rows)
	}
}
