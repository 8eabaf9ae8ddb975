package builds

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"berth/internal/build"
	"berth/internal/fault"
)

// The sizes of a build's picture, in pixels.
const (
	traceNames = 360 // the column of names
	traceBars  = 840
	traceRow   = 22
	traceHead  = 56
)

// Picture draws when which step of a build ran, as SVG.
func Picture(b *build.Build, w io.Writer) error {
	total := b.Finished.Sub(b.Started)
	if total <= 0 {
		total = time.Millisecond
	}
	steps := 0
	for _, s := range b.Steps {
		if !s.Skipped {
			steps++
		}
	}
	var out bytes.Buffer
	height := traceHead + steps*traceRow + 12
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="ui-monospace, monospace" font-size="12">`+"\n",
		traceNames+traceBars+90, height)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" fill="#fff"/><text x="12" y="22" font-size="15" font-weight="bold">%s</text><text x="12" y="42" fill="#666">%s, %s</text>`+"\n",
		escaped(b.Name), escaped(b.Status), total.Round(time.Millisecond))
	traceGrid(&out, total, height)
	row := 0
	for _, s := range b.Steps {
		if s.Skipped {
			continue
		}
		y := traceHead + row*traceRow
		row++
		took := max(0, s.Finished.Sub(s.Started))
		x := traceNames + float64(traceBars)*float64(s.Started.Sub(b.Started))/float64(total)
		colour := "#3b82f6"
		label := took.Round(time.Millisecond).String()
		switch {
		case s.Error != "":
			colour = "#dc2626"
		case s.Cached:
			colour, label = "#9ca3af", "cached"
		case s.Shared:
			colour, label = "#8b5cf6", label+", of another build"
		}
		about := s.Name
		for _, more := range []string{s.Why, s.Error} {
			if more != "" {
				about += "\n" + more
			}
		}
		width := max(2, float64(traceBars)*float64(took)/float64(total))
		fmt.Fprintf(&out, `<g><title>%s</title><text x="12" y="%d">%s</text><rect x="%.1f" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/><text x="%.1f" y="%d" fill="#666">%s</text></g>`+"\n",
			escaped(about), y+15, escaped(shortened(s.Name, 48)), x, y+3, width, traceRow-6, colour, x+width+4, y+15, label)
	}
	out.WriteString("</svg>\n")
	_, err := w.Write(out.Bytes())
	return fault.Wrap("draw build", b.ID, err)
}

// traceGrid draws five lines with their times.
func traceGrid(out *bytes.Buffer, total time.Duration, height int) {
	for i := range 5 {
		x := traceNames + traceBars*i/4
		at := total * time.Duration(i) / 4
		fmt.Fprintf(out, `<line x1="%d" y1="%d" x2="%[1]d" y2="%d" stroke="#e5e7eb"/><text x="%[1]d" y="%[4]d" fill="#999" text-anchor="middle">%[5]s</text>`+"\n",
			x, traceHead-4, height-8, traceHead-10, at.Round(time.Millisecond))
	}
}

func shortened(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
