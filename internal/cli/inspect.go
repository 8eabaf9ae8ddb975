package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/client"
)

const inspectExample = `  berth inspect web
  berth inspect -f '{{.NetworkSettings.IPAddress}}' web
  berth inspect --type image alpine`

func buildInspect(a *app, cmd *cobra.Command) {
	var layout, kind, platform string
	var size bool
	cmd.Flags().StringVarP(&layout, "format", "f", "", "`FORMAT` json or a Go template")
	cmd.Flags().StringVar(&kind, "type", "", "`KIND` look among container, image, network or volume alone")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "show what a container has written")
	cmd.Flags().StringVar(&platform, "platform", "", "`OS/ARCH` show what an image has for this platform")
	cmd.Args = atLeast(1, "a container or an image")
	cmd.ValidArgsFunction = a.completeAnything
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		lookups, err := inspectors(c, kind, platform, size)
		if err != nil {
			return err
		}
		return a.inspect(cmd.Context(), t, lookups, args)
	}
}

// inspect prints what is found of each name; what is missing does not keep the
// rest from being shown.
func (a *app) inspect(ctx context.Context, t *format.Template, lookups []inspector, refs []string) error {
	var found []json.RawMessage
	failed := false
	for _, ref := range refs {
		raw, err := inspectOne(ctx, lookups, ref)
		if err != nil {
			a.complain(err)
			failed = true
			continue
		}
		found = append(found, raw)
	}
	if err := a.printInspected(t, found); err != nil {
		return err
	}
	if failed {
		return &exit{codeFailed, nil}
	}
	return nil
}

type inspector func(ctx context.Context, ref string) (json.RawMessage, error)

// inspectors returns where to look for a name, in order.
func inspectors(c *client.Client, kind, platform string, size bool) ([]inspector, error) {
	containers := func(ctx context.Context, ref string) (json.RawMessage, error) {
		return c.ContainerInspect(ctx, ref, size)
	}
	images := func(ctx context.Context, ref string) (json.RawMessage, error) {
		return c.ImageInspect(ctx, ref, platform)
	}
	switch {
	case platform != "" && (kind == "" || kind == "image"):
		return []inspector{images}, nil
	case platform != "":
		return nil, wrong("--platform is about images alone")
	}
	switch kind {
	case "":
		return []inspector{containers, images, c.NetworkInspect, c.VolumeInspect}, nil
	case "container":
		return []inspector{containers}, nil
	case "image":
		return []inspector{images}, nil
	case "network":
		return []inspector{c.NetworkInspect}, nil
	case "volume":
		return []inspector{c.VolumeInspect}, nil
	}
	return nil, wrong("--type %q: use container, image, network or volume", kind)
}

func inspectOne(ctx context.Context, lookups []inspector, ref string) (json.RawMessage, error) {
	for _, look := range lookups {
		raw, err := look(ctx, ref)
		if err == nil || !isMissing(err) || len(lookups) == 1 {
			return raw, err
		}
	}
	return nil, wrong("No such object: %s", ref)
}

// isMissing reports whether an engine answered that something does not exist.
func isMissing(err error) bool {
	var refusal *client.Refusal
	return errors.As(err, &refusal) && refusal.Status == 404
}

func (a *app) printInspected(t *format.Template, found []json.RawMessage) error {
	if t.Kind == format.Table {
		list := append(append([]byte("["), joinRaw(found)...), ']')
		_, err := fmt.Fprintln(a.out, client.Indent(list, "", "    "))
		return err
	}
	return a.printValues(t, found...)
}

func joinRaw(list []json.RawMessage) []byte {
	var out []byte
	for i, raw := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, raw...)
	}
	return out
}

// printValues executes a template for each JSON document.
func (a *app) printValues(t *format.Template, documents ...json.RawMessage) error {
	for _, raw := range documents {
		if t.Kind == format.JSON {
			if _, err := fmt.Fprintln(a.out, compact(raw)); err != nil {
				return err
			}
			continue
		}
		value, err := format.Decode(raw)
		if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if err := t.Execute(a.out, value); err != nil {
			return err
		}
	}
	return nil
}

func compact(raw json.RawMessage) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(raw) != nil {
		return string(raw)
	}
	return strings.TrimRight(b.String(), "\n")
}

func buildTag(a *app, cmd *cobra.Command) {
	cmd.Args = exactly(2, "an image and its new name")
	cmd.ValidArgsFunction = a.completeImages(2)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		return c.ImageTag(cmd.Context(), args[0], args[1])
	}
}

func buildDialStdio(a *app, cmd *cobra.Command) {
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		conn, err := c.Dial(cmd.Context())
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(conn, a.in)
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		}()
		_, err = io.Copy(a.out, conn)
		return err
	}
}
