package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// cacheDir is a directory with build caches: an OCI layout. It is read with the
// rights of whoever builds, and nothing in it leads out of it.
type cacheDir struct {
	path string
	root *os.Root
}

const (
	layoutFile  = "oci-layout"
	layoutText  = `{"imageLayoutVersion":"1.0.0"}`
	layoutIndex = "index.json"
	layoutBlobs = "blobs/sha256"
	layoutName  = "org.opencontainers.image.ref.name"
	layoutMost  = 8 << 20 // bytes of a document
)

func openCacheDir(path string) (*cacheDir, error) {
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &cacheDir{path, root}, nil
}

func (d *cacheDir) close() { d.root.Close() }

// descriptor is what a layout says about a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// document is a manifest or an index, of which all that refers to blobs is read.
type document struct {
	Config    *descriptor  `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
}

// blobPath returns where a blob is.
func blobPath(digest string) (string, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size || sum != strings.ToLower(sum) {
		return "", fmt.Errorf("%.100q is no sha256 digest", digest)
	}
	return layoutBlobs + "/" + sum, nil
}

// file reads a small file.
func (d *cacheDir) file(name string) ([]byte, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", name))
	}
	data, err := io.ReadAll(io.LimitReader(f, layoutMost+1))
	if err == nil && len(data) > layoutMost {
		err = fmt.Errorf("%s has more than %d bytes", name, layoutMost)
	}
	return data, err
}

// index lists what the directory holds.
func (d *cacheDir) index() (*document, error) {
	data, err := d.file(layoutIndex)
	if err != nil {
		return nil, err
	}
	var x document
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("%s: %w", layoutIndex, err)
	}
	return &x, nil
}

// small reads a document that is a blob.
func (d *cacheDir) small(digest string) ([]byte, error) {
	path, err := blobPath(digest)
	if err != nil {
		return nil, err
	}
	data, err := d.file(path)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("the bytes of %s are others", digest)
	}
	return data, nil
}

// read returns the manifest and the config of one cache: that of a digest, else of
// a tag, else of "latest", or the only one.
func (d *cacheDir) read(tag, digest string) (manifest, config []byte, err error) {
	if digest == "" {
		x, err := d.index()
		if err != nil {
			return nil, nil, err
		}
		if digest = x.tagged(tag); digest == "" {
			return nil, nil, fmt.Errorf("there is no cache %q in it", orLatest(tag))
		}
	}
	if manifest, err = d.small(digest); err != nil {
		return nil, nil, err
	}
	var m document
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", digest, err)
	}
	if m.Config != nil {
		config, err = d.small(m.Config.Digest)
	}
	return manifest, config, err
}

func (x *document) tagged(tag string) string {
	for _, m := range x.Manifests {
		if m.Annotations[layoutName] == orLatest(tag) {
			return m.Digest
		}
	}
	if tag == "" && len(x.Manifests) == 1 {
		return x.Manifests[0].Digest
	}
	return ""
}

func orLatest(tag string) string {
	if tag == "" {
		return "latest"
	}
	return tag
}

// blob opens a blob. The engine verifies it.
func (d *cacheDir) blob(digest string) (*os.File, error) {
	path, err := blobPath(digest)
	if err != nil {
		return nil, err
	}
	f, err := d.root.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	return f, nil
}

// maxNested is how deep documents refer to one another.
const maxNested = 4

// referenced adds all blobs that documents lead to, with their sizes.
func (d *cacheDir) referenced(list []descriptor, depth int, all map[string]int64) error {
	for _, one := range list {
		if _, ok := all[one.Digest]; ok {
			continue
		}
		all[one.Digest] = one.Size
		isIndex := strings.Contains(one.MediaType, "index") || strings.Contains(one.MediaType, "manifest.list")
		if depth >= maxNested || !isIndex && !strings.Contains(one.MediaType, "manifest") {
			continue
		}
		data, err := d.small(one.Digest)
		var m document
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err != nil {
			return err
		}
		more := append(m.Manifests, m.Layers...)
		if m.Config != nil {
			more = append(more, *m.Config)
		}
		if err := d.referenced(more, depth+1, all); err != nil {
			return err
		}
	}
	return nil
}

// whole lists the blobs that the directory's caches name and that are there.
func (d *cacheDir) whole() []string {
	x, err := d.index()
	if err != nil {
		return nil
	}
	all := map[string]int64{}
	_ = d.referenced(x.Manifests, 0, all) // what cannot be read is not there
	var out []string
	for digest, size := range all {
		path, err := blobPath(digest)
		if err != nil {
			continue
		}
		if info, err := d.root.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == size {
			out = append(out, digest)
		}
	}
	return out
}

// isLayout reports whether something may be written there: a layout, or nothing.
func (d *cacheDir) isLayout() (bool, error) {
	if _, err := d.root.Lstat(layoutIndex); err == nil {
		return true, nil
	}
	f, err := d.root.Open(".")
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	for _, name := range names {
		if name != layoutFile && name != "blobs" && !strings.HasPrefix(name, stagePrefix) {
			return false, nil
		}
	}
	return true, nil
}
