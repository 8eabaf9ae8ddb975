package test

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations come to registries and archives, belong to a name and not to the
// image's id, and stay when the image goes through an archive.
func TestAnnotationsStayWithTheImage(t *testing.T) {
	t.Parallel()
	h, registries := newPlatforms(t)
	dir := h.context("annotated", map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
	for _, registry := range registries {
		name := registry + "/annotated:"
		h.build("-t", name+"1", "--annotation", "vendor=one", "--annotation", "manifest-descriptor:d=e", "--push", "--metadata-file", h.path("m"), dir)
		h.build("-t", name+"2", "--annotation", "vendor=two", dir)
		h.build("-t", name+"plain", "--push", dir)
		h.berth("push", name+"2")
		for tag, want := range map[string]string{"1": "one", "2": "two", "plain": ""} {
			var m ocispec.Manifest
			d := h.atRegistry(name+tag, &m)
			if m.MediaType != ocispec.MediaTypeImageManifest || m.Annotations["vendor"] != want {
				t.Errorf("%s%s is a %s with %v", name, tag, m.MediaType, m.Annotations)
			}
			if meta := h.metadata("m"); tag == "1" && (meta.Descriptor.Digest != d || meta.Descriptor.Annotations["d"] != "e") {
				t.Errorf("it is %s, the metadata has %+v", d, meta)
			}
			if h.berth("image", "inspect", "-f", "{{.Id}}", name+tag) != h.berth("image", "inspect", "-f", "{{.Id}}", name+"plain") {
				t.Errorf("annotations made another image of %s", name+tag)
			}
		}
		h.berth("save", "-o", h.path("a.tar"), name+"1")
		h.berth("rmi", name+"1")
		h.berth("load", "-i", h.path("a.tar"))
		h.berth("tag", name+"1", name+"3")
		h.berth("push", name+"3")
		var m ocispec.Manifest
		if h.atRegistry(name+"3", &m); m.Annotations["vendor"] != "one" {
			t.Errorf("after save and load it has %v", m.Annotations)
		}

		var shown strings.Builder
		if err := h.get("/images/"+name+"1/json?manifests=1", &shown); err != nil || !strings.Contains(shown.String(), `"vendor":"one"`) {
			t.Errorf("inspected: %v %s", err, shown.String())
		}
		h.build("--platform", "linux/amd64,linux/arm64", "-t", name+"both", "--annotation", "manifest,index:all=1", "--annotation", "manifest[linux/arm64]:own=2",
			"--annotation", "manifest-descriptor[linux/amd64]:desc=3", "--push", dir)
		var x ocispec.Index
		h.atRegistry(name+"both", &x)
		if x.Annotations["all"] != "1" || x.Manifests[0].Annotations["desc"] != "3" || x.Manifests[1].Annotations != nil {
			t.Errorf("the index is %+v", x)
		}
		for i, want := range []string{"", "2"} {
			var m ocispec.Manifest
			h.atRegistry(registry+"/annotated@"+x.Manifests[i].Digest.String(), &m)
			if m.Annotations["all"] != "1" || m.Annotations["own"] != want {
				t.Errorf("manifest %d has %v", i, m.Annotations)
			}
		}
	}
	for bad, want := range map[string]string{"novalue": "novalue", "index:a=b": "no index", "manifest[linux/arm64]:a=b": "linux/arm64", "layer:a=b": "layer"} {
		if o := h.run("build", "--annotation", bad, dir); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("--annotation %s: code %d %s", bad, o.code, o.stderr)
		}
	}
}
