package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/terminal"
)

func buildTree(a *app, cmd *cobra.Command) {
	var layout string
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json or a Go template")
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
		raw, err := c.ImageTree(cmd.Context())
		if err != nil {
			return err
		}
		if t.Kind != format.Table {
			return a.printValues(t, raw)
		}
		return a.printTree(raw)
	}
}

// branch is a layer in an engine's tree of layers, with what is stacked on it.
type branch struct {
	DiffID string
	Size   int64 // bytes
	Images int
	Tops   []treeImage
	Above  []*branch
}

type treeImage struct {
	ID       string
	RepoTags []string
	Platform string
	Size     int64 // bytes
}

// printTree draws images by the layers that they are stacked of. Layers that
// only follow one another are one line.
func (a *app) printTree(raw json.RawMessage) error {
	var t struct {
		Roots []*branch
		Empty []treeImage
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	b := &treePainter{corner: "└─ ", tee: "├─ ", bar: "│  "}
	if !terminal.Unicode() {
		b.corner, b.tee, b.bar = "`- ", "|- ", "|  "
	}
	for _, root := range t.Roots {
		b.branch(root, "", "")
	}
	for i := range t.Empty {
		b.WriteString(t.Empty[i].line() + ", no layers\n")
	}
	_, err := io.WriteString(a.out, format.Printable(b.String()))
	return err
}

type treePainter struct {
	strings.Builder
	corner, tee, bar string
}

func (p *treePainter) branch(b *branch, first, rest string) {
	n, size, top := 1, b.Size, b
	for len(top.Tops) == 0 && len(top.Above) == 1 {
		top = top.Above[0]
		n, size = n+1, size+top.Size
	}
	text := format.ShortID(b.DiffID)
	if n > 1 {
		text += " and " + format.Plural(n-1, "more layer")
	}
	text += "  " + format.Bytes(size)
	if top.Images > 1 {
		text += fmt.Sprintf(", shared by %d images", top.Images)
	}
	p.WriteString(first + text + "\n")
	left := len(top.Tops) + len(top.Above)
	joint := func() (string, string) {
		if left--; left == 0 {
			return rest + p.corner, rest + "   "
		}
		return rest + p.tee, rest + p.bar
	}
	for i := range top.Tops {
		head, _ := joint()
		p.WriteString(head + top.Tops[i].line() + "\n")
	}
	for _, above := range top.Above {
		head, tail := joint()
		p.branch(above, head, tail)
	}
}

func (i *treeImage) line() string {
	name := strings.Join(i.RepoTags, ", ")
	if name == "" {
		name = "<none>"
	}
	text := name + "  " + format.ShortID(i.ID) + "  " + format.Bytes(i.Size)
	if i.Platform != "" {
		text += "  " + i.Platform
	}
	return text
}
