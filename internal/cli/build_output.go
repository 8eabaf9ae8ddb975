package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/cli/archive"
	"berth/internal/cli/format"
	"berth/internal/cli/spec"
	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/wire"
)

// exporter is one place where a build's result goes.
type exporter struct {
	kind  string // image, local, tar, archive
	dest  string // file or directory, "-" for standard output
	names []string
	push  bool
	split *bool // of files: whether each platform has a directory; nil: when there are several
}

// exporters reads --output, --push and their like.
func (f *buildFlags) exporters() ([]exporter, error) {
	var out []exporter
	for _, text := range f.outputs {
		e, err := exporterOf(text)
		if err != nil {
			return nil, err
		}
		f.tags = append(f.tags, e.names...)
		out = append(out, e)
	}
	if f.push {
		out = append(out, exporter{kind: "image", push: true})
	}
	image := len(out) == 0
	for _, e := range out {
		image = image || e.kind == "image" || e.kind == "archive"
		if e.push && len(f.tags) == 0 {
			return nil, wrong("an image without a name cannot be pushed").WithHint("name it with -t")
		}
	}
	if !image && len(f.annotations)+len(f.attests()) > 0 {
		return nil, wrong("files alone are asked for with --output, and annotations and attestations belong to images")
	}
	if !image && (f.iidFile != "" || len(f.tags) > 0) {
		return nil, wrong("files alone are asked for with --output, so there will be no image to name").
			WithHint("leave --tag and --iidfile out, or add --output type=image")
	}
	return out, nil
}

func exporterOf(text string) (exporter, error) {
	if !strings.Contains(text, "=") {
		if text == "-" {
			return exporter{kind: "tar", dest: "-"}, nil
		}
		return exporter{kind: "local", dest: text}, nil
	}
	fields, err := spec.Fields("output", text, "", "type", "dest", "name", "push", "platform-split")
	if err != nil {
		return exporter{}, wrong("%s", err)
	}
	e := exporter{kind: fields["type"], dest: fields["dest"], push: isTrue(fields["push"])}
	for name := range strings.SplitSeq(fields["name"], ",") {
		if name != "" {
			e.names = append(e.names, name)
		}
	}
	switch e.kind {
	case "local":
		if e.dest == "" {
			return e, wrong("--output %q: the directory is missing", text).WithHint("add dest=DIR")
		}
	case "tar", "oci":
		if e.dest == "" {
			e.dest = "-"
		}
	case "docker":
		if e.dest == "" {
			e.kind = "image"
		}
	case "registry":
		e.kind, e.push = "image", true
	case "image":
	default:
		return e, wrong("--output %q: type %q is none of image, local, tar, oci, docker, registry", text, e.kind)
	}
	if text, ok := fields["platform-split"]; ok {
		split, err := strconv.ParseBool(text)
		if err != nil {
			return e, wrong("--output platform-split=%q: use true or false", text)
		}
		if e.split = &split; e.kind != "local" && e.kind != "tar" {
			return e, wrong("--output type=%s: platform-split is for files: type=local or type=tar", e.kind)
		}
	}
	if e.kind == "oci" || e.kind == "docker" {
		e.kind = "archive" // one file is both
	}
	if e.kind == "image" && e.dest != "" {
		return e, wrong("--output %q: an image in the engine has no destination", text)
	}
	return e, nil
}

func isTrue(text string) bool { return text == "true" || text == "1" }

// split tells exporters of images from those of files.
func split(all []exporter) (images, files []exporter) {
	for _, e := range all {
		if e.kind == "local" || e.kind == "tar" {
			files = append(files, e)
		} else {
			images = append(images, e)
		}
	}
	return images, files
}

// files builds again, which finds all steps done, for the result's files.
func (b *building) files(ctx context.Context, out exporter) error {
	rq := *b.request
	rq.Attests, rq.Annotations = nil, nil // they go with images
	rq.Files, rq.SplitFiles, rq.Tags = true, len(rq.Platforms) > 1, nil
	if out.split != nil {
		rq.SplitFiles = *out.split
	}
	if out.kind == "tar" {
		return b.app.download(out.dest, func(w io.Writer) error {
			return b.build(ctx, &rq, func(data []byte) error {
				_, err := w.Write(data)
				return err
			})
		})
	}
	// The archive has no entry for the root itself.
	var root bytes.Buffer
	head := tar.NewWriter(&root)
	if err := head.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Now()}); err != nil {
		return err
	}
	if err := head.Flush(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out.dest), 0o777); err != nil {
		return err
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := archive.Extract(io.MultiReader(&root, r), out.dest, archive.Options{
			Skipped: func(name, why string) { b.app.warn("%s is left out: %s", name, why) },
		})
		_ = r.CloseWithError(orClosed(err))
		done <- err
	}()
	err := b.build(ctx, &rq, func(data []byte) error {
		_, err := w.Write(data)
		return err
	})
	_ = w.CloseWithError(err) // nil is the end of the archive
	if extracted := <-done; err == nil {
		err = extracted
	}
	return err
}

// orClosed is an error for whoever writes to somebody who no longer reads.
func orClosed(err error) error {
	if err == nil {
		return io.ErrClosedPipe
	}
	return err
}

// deliver does what is to be done with an image that was built.
func (b *building) deliver(ctx context.Context, images []exporter) error {
	f, a := b.flags, b.app
	if b.request.Check {
		return b.checked()
	}
	if b.result != nil && b.result.ImageID != "" {
		for _, e := range images {
			if err := b.export(ctx, e); err != nil {
				return err
			}
		}
		if f.iidFile != "" {
			if err := a.writeWhole(f.iidFile, b.result.ImageID); err != nil {
				return err
			}
		}
	}
	if f.metadataFile != "" {
		if err := b.writeMetadata(); err != nil {
			return err
		}
	}
	if f.quiet && b.result != nil {
		if b.result.ImageID != "" {
			fmt.Fprintln(a.out, b.result.ImageID)
		}
		return nil
	}
	b.view.Built(b.result, b.request.Tags)
	return nil
}

// checked says whether mistakes were found, and how many.
func (b *building) checked() error {
	n := b.view.Warnings()
	if n == 0 {
		fmt.Fprintln(b.app.out, "Check complete, no warnings found.")
		return nil
	}
	return &exit{codeFailed, wrong("check complete, %s found", format.Plural(n, "warning"))}
}

func (b *building) export(ctx context.Context, e exporter) error {
	a := b.app
	if e.kind == "archive" {
		refs := b.request.Tags
		if len(refs) == 0 {
			refs = []string{b.result.ImageID}
			if b.result.Top != nil {
				refs[0] = b.result.Top.Digest
			}
		}
		return a.download(e.dest, func(w io.Writer) error { return b.client.ImageSave(ctx, refs, nil, w) })
	}
	if !e.push {
		return nil
	}
	names := e.names
	if len(names) == 0 {
		names = b.request.Tags
	}
	for _, ref := range names {
		auth, err := authFor(ctx, ref)
		if err != nil {
			return err
		}
		show := a.display(a.err, b.flags.quiet)
		err = b.client.ImagePush(ctx, ref, client.PushOptions{Auth: auth}, func(m client.Progress) {
			b.noteAsPushed(m)
			show.Update(m)
		})
		show.Close()
		if err != nil {
			return withLoginHint(ref, fault.Wrap("push", ref, err))
		}
	}
	return nil
}

// noteAsPushed keeps what a registry knows the result as: there its layers are
// compressed, so that its manifest is another than here.
func (b *building) noteAsPushed(m client.Progress) {
	var at struct {
		Digest string
		Size   int64
	}
	if m.Aux == nil || json.Unmarshal(*m.Aux, &at) != nil || at.Digest == "" {
		return
	}
	b.pushed = &wire.BuildDocument{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: at.Digest, Size: at.Size}
	if top := b.result.Top; top != nil {
		b.pushed.MediaType, b.pushed.Annotations = top.MediaType, top.Annotations
	}
}

// writeMetadata writes --metadata-file with the keys that docker's has.
func (b *building) writeMetadata() error {
	data := map[string]any{}
	if r := b.result; r != nil {
		data["buildx.build.ref"] = r.ID
		if r.ImageID != "" && len(r.Platforms) <= 1 {
			data["containerimage.config.digest"], data["containerimage.digest"] = r.ImageID, r.ImageID
		}
		top := r.Top
		if b.pushed != nil {
			top = b.pushed
		}
		if top != nil {
			data["containerimage.digest"], data["containerimage.descriptor"] = top.Digest, top
		}
	}
	if len(b.request.Tags) > 0 {
		data["image.name"] = strings.Join(canonicalNames(b.request.Tags), ",")
	}
	text, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	return b.app.writeWhole(b.flags.metadataFile, string(text)+"\n")
}

func canonicalNames(refs []string) []string {
	out := make([]string, len(refs))
	for i, ref := range refs {
		out[i] = canonicalName(ref)
	}
	return out
}

// writeWhole writes a file that appears when it is complete, and writes into what
// is no regular file, such as a pipe.
func (a *app) writeWhole(path, text string) error {
	if path == "/dev/stdout" { // may be a file that is not to be replaced
		_, err := io.WriteString(a.out, text)
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, []byte(text), 0o644)
	}
	return replaceFile(path, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}
