package vocabulary

import (
	"strings"
	"text/template"

	"berth/internal/container"
)

// tagContext is what a template of the log option tag can name: docker's words.
type tagContext struct {
	ID, FullID, Name, FullName, ImageID, ImageFullID, ImageName, Command, DaemonName string
}

// LogTag carries out the template of the log option tag for a container; "" gives
// "".
func LogTag(text string, rec *container.Record) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := template.New("tag").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", invalid("invalid log option tag %q: %v", text, err)
	}
	short := func(id string) string { return id[:min(len(id), 12)] }
	image := strings.TrimPrefix(rec.ImageID.String(), "sha256:")
	var out strings.Builder
	err = t.Execute(&out, tagContext{
		ID: short(rec.ID), FullID: rec.ID, Name: rec.Name, FullName: "/" + rec.Name, ImageID: short(image), ImageFullID: rec.ImageID.String(),
		ImageName: rec.ImageRef, Command: strings.Join(append([]string{rec.Path}, rec.Args...), " "), DaemonName: "berth",
	})
	if err != nil {
		return "", invalid("invalid log option tag %q: %v", text, err)
	}
	return out.String(), nil
}
