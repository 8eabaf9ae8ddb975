package cli

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/cli/spec"
	"berth/internal/fault"
	"berth/internal/wire"
)

// cachePlaces are the directories that caches come from and go to, by the entries
// of the request.
type cachePlaces struct {
	from map[int]*cacheDir
	to   map[int]*cacheExport
}

// caches reads --cache-from and --cache-to.
func (a *app) caches(f *buildFlags, rq *wire.BuildRequest) (*cachePlaces, error) {
	p := &cachePlaces{from: map[int]*cacheDir{}, to: map[int]*cacheExport{}}
	for _, text := range f.cacheFrom {
		if err := a.cacheFrom(text, rq, p); err != nil {
			return nil, err
		}
	}
	for _, text := range f.cacheTo {
		if err := cacheTo(text, rq, p); err != nil {
			return nil, err
		}
	}
	if rq.Args["BUILDKIT_INLINE_CACHE"] == "1" {
		rq.InlineCache = true
	}
	return p, nil
}

func noCacheKind(flag, text string) error {
	return fault.New(fault.Unsupported, "", "", "--%s %q is not offered by berth", flag, text).
		WithHint("caches are kept at registries (type=registry,ref=NAME), in directories (type=local) and in images (type=inline)")
}

func (a *app) cacheFrom(text string, rq *wire.BuildRequest, p *cachePlaces) error {
	if !strings.Contains(text, "=") {
		for ref := range strings.SplitSeq(text, ",") {
			rq.CacheFrom = append(rq.CacheFrom, wire.BuildCacheFrom{Ref: ref, Here: true})
		}
		return nil
	}
	switch kind := kindOfCache(text); kind {
	case "registry", "inline":
		fields, err := spec.Fields("cache-from", text, "", "type", "ref", "mounts")
		if err != nil {
			return wrong("%s", err)
		}
		if fields["ref"] == "" {
			return wrong("--cache-from %q has no ref", text).WithHint("use --cache-from type=registry,ref=NAME")
		}
		mounts, err := cacheSwitch("cache-from", text, fields, "mounts", false)
		rq.CacheFrom = append(rq.CacheFrom, wire.BuildCacheFrom{Ref: fields["ref"], Mounts: mounts})
		return err
	case "local":
		fields, err := spec.Fields("cache-from", text, "", "type", "src", "tag", "digest", "mounts")
		if err != nil {
			return wrong("%s", err)
		}
		if fields["src"] == "" {
			return wrong("--cache-from %q has no src", text).WithHint("use --cache-from type=local,src=DIR")
		}
		mounts, err := cacheSwitch("cache-from", text, fields, "mounts", false)
		if err != nil {
			return err
		}
		dir, err := openCacheDir(fields["src"])
		if err != nil {
			a.warn("cache-from %s: %v", fields["src"], err) // a build without it is only slower
			return nil
		}
		from := wire.BuildCacheFrom{Dir: dir.path, Mounts: mounts}
		if from.Manifest, from.Document, err = dir.read(fields["tag"], fields["digest"]); err != nil {
			a.warn("cache-from %s: %v", fields["src"], err)
			return nil
		}
		p.from[len(rq.CacheFrom)] = dir
		rq.CacheFrom = append(rq.CacheFrom, from)
		return nil
	}
	return noCacheKind("cache-from", text)
}

func cacheTo(text string, rq *wire.BuildRequest, p *cachePlaces) error {
	switch {
	case text == "inline" || kindOfCache(text) == "inline":
		_, err := spec.Fields("cache-to", text, "type", "type", "mode")
		rq.InlineCache = true
		if err != nil {
			return wrong("%s", err)
		}
		return nil
	case !strings.Contains(text, "="):
		rq.CacheTo = append(rq.CacheTo, wire.BuildCacheTo{Ref: text})
		return nil
	}
	known := []string{"type", "mode", "mounts", "ignore-error", "oci-mediatypes", "image-manifest", "compression", "force-compression"}
	place := "ref"
	switch kindOfCache(text) {
	case "registry":
		known = append(known, "ref")
	case "local":
		known, place = append(known, "dest", "tag"), "dest"
	default:
		return noCacheKind("cache-to", text)
	}
	fields, err := spec.Fields("cache-to", text, "", known...)
	if err != nil {
		return wrong("%s", err)
	}
	if fields[place] == "" {
		return wrong("--cache-to %q has no %s", text, place)
	}
	to, err := cacheOptions(text, fields)
	if err != nil {
		return err
	}
	if to.Ref = fields["ref"]; place == "dest" {
		x, err := beginCacheExport(fields["dest"], fields["tag"])
		if err != nil {
			return err
		}
		to.Have = x.have
		p.to[len(rq.CacheTo)] = x
	}
	rq.CacheTo = append(rq.CacheTo, to)
	return nil
}

// cacheOptions reads how a cache is to be written.
func cacheOptions(text string, fields map[string]string) (to wire.BuildCacheTo, err error) {
	switch fields["mode"] {
	case "", "min":
	case "max":
		to.Max = true
	default:
		return to, wrong("--cache-to %q: mode is min (the result's layers) or max (those of all steps)", text)
	}
	if to.Mounts, err = cacheSwitch("cache-to", text, fields, "mounts", false); err != nil {
		return to, err
	}
	if to.IgnoreError, err = cacheSwitch("cache-to", text, fields, "ignore-error", false); err != nil {
		return to, err
	}
	for key, only := range map[string]bool{"oci-mediatypes": true, "image-manifest": true, "force-compression": false} {
		is, err := cacheSwitch("cache-to", text, fields, key, only)
		if err != nil {
			return to, err
		}
		if is != only {
			return to, fault.New(fault.Unsupported, "", "", "--cache-to %q: %s=%t is not offered by berth", text, key, is).
				WithHint("a cache is an OCI manifest, whose layers are packed as they are known already")
		}
	}
	if c := fields["compression"]; c != "" && c != "gzip" {
		return to, fault.New(fault.Unsupported, "", "", "--cache-to %q: compression=%s is not offered by berth", text, c).
			WithHint("layers are packed with gzip, as those of the image: a registry keeps them once")
	}
	return to, nil
}

func cacheSwitch(flag, text string, fields map[string]string, key string, otherwise bool) (bool, error) {
	if fields[key] == "" {
		return otherwise, nil
	}
	is, err := strconv.ParseBool(fields[key])
	if err != nil {
		return false, wrong("--%s %q: %s is true or false", flag, text, key)
	}
	return is, nil
}

func kindOfCache(text string) string {
	for part := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(part, "="); ok && strings.EqualFold(strings.TrimSpace(key), "type") {
			return value
		}
	}
	return ""
}

// close lets go of what was not delivered.
func (p *cachePlaces) close() {
	for _, d := range p.from {
		d.close()
	}
	for _, x := range p.to {
		x.abandon()
	}
}

// supply sends a blob that the engine asks for, while the build goes on.
func (b *building) supply(ctx context.Context, e *wire.BuildEvent) {
	id, entry, name := e.Shell, e.Entry, e.Name
	b.supplies.Go(func() {
		dir := b.caches.from[entry]
		if dir == nil {
			return
		}
		blob, err := dir.blob(name)
		if err != nil {
			b.app.warn("cache-from %s: %v", dir.path, err)
			_ = b.client.BuildBlob(ctx, id, nil)
			return
		}
		defer blob.Close()
		_ = b.client.BuildBlob(ctx, id, blob) // the engine says what is wrong with it
	})
}

// keepCaches makes caches that have come what their directories hold.
func (b *building) keepCaches() error {
	for i, x := range b.caches.to {
		err := x.finish()
		if err == nil {
			continue
		}
		err = fault.Wrap("write build cache", x.path, err)
		if !b.request.CacheTo[i].IgnoreError {
			return err
		}
		b.app.warn("cache-to %v", err)
	}
	return nil
}

// absolute is a path that does not depend on where we are.
func absolute(path string) (string, error) { return filepath.Abs(expandHome(path)) }
