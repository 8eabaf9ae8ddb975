package image

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
)

// Limits on documents from outside.
const (
	MaxManifest = 4 << 20 // bytes of a manifest or index, as registries have it
	MaxConfig   = 8 << 20 // bytes of an image config
	maxLayers   = 1000    // layers of one manifest
	maxEntries  = 1000    // manifests of one index
)

// Docker's own media types, which mean the same as OCI's.
const (
	DockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex      = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig     = "application/vnd.docker.container.image.v1+json"
	DockerLayer      = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd  = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1JWS = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrMediaType    = errors.New("unknown media type")
	ErrForeignLayer = errors.New("the layer is kept elsewhere by its maker and is never fetched from there")
	ErrDocument     = errors.New("malformed document")
	ErrTooLarge     = errors.New("too large")
	ErrDigest       = errors.New("digest mismatch")
	ErrSize         = errors.New("size mismatch")
	ErrPlatform     = errors.New("no image for this platform")
)

// IsIndex and IsManifest tell what a media type stands for.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerIndex
}

// IsManifest reports whether mediaType is that of one image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}

// Document is a manifest or an index, whichever is not nil.
type Document struct {
	Manifest *ocispec.Manifest
	Index    *ocispec.Index
}

// ParseDocument reads and checks a manifest or an index. mediaType is what the
// source said it is, or "". A document that could be taken for both is refused,
// as is anything that is neither.
func ParseDocument(data []byte, mediaType string) (Document, error) {
	return parse(data, mediaType, false)
}

// ParseAny is ParseDocument for those who only keep or move documents: it also
// takes manifests of artifacts, which are no images, and layers of any type.
func ParseAny(data []byte, mediaType string) (Document, error) {
	return parse(data, mediaType, true)
}

// ArtifactType returns what a manifest is when it is no image, else "".
func (d Document) ArtifactType() string {
	switch m := d.Manifest; {
	case m == nil, isImageConfig(m.Config.MediaType):
		return ""
	case m.ArtifactType != "":
		return m.ArtifactType
	case m.Config.MediaType != "":
		return m.Config.MediaType
	}
	return "unknown"
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == DockerConfig
}

func parse(data []byte, mediaType string, artifacts bool) (Document, error) {
	if len(data) > MaxManifest {
		return Document{}, badDocument("manifest", "%w: more than %d bytes", ErrTooLarge, MaxManifest)
	}
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return Document{}, badDocument("manifest", "%w: %w", ErrDocument, err)
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.TrimSpace(mediaType)
	if probe.MediaType != "" && mediaType != "" && probe.MediaType != mediaType && (IsIndex(mediaType) || IsManifest(mediaType)) {
		return Document{}, badDocument("manifest", "%w: it calls itself %q and came as %q", ErrMediaType, probe.MediaType, mediaType)
	}
	if probe.MediaType != "" {
		mediaType = probe.MediaType
	}
	if probe.SchemaVersion == 1 || probe.FSLayers != nil || mediaType == dockerSchema1 || mediaType == dockerSchema1JWS {
		return Document{}, fault.New(fault.Unsupported, "read manifest", "", "%w: schema 1, which nobody could verify", ErrMediaType).
			WithHint("push the image again with a newer docker")
	}
	hasManifest := probe.Config != nil || probe.Layers != nil
	hasIndex := probe.Manifests != nil
	switch {
	case hasManifest && hasIndex:
		return Document{}, badDocument("manifest", "%w: it has both layers and manifests", ErrDocument)
	case probe.SchemaVersion != 2:
		return Document{}, badDocument("manifest", "%w: schemaVersion is %d, not 2", ErrDocument, probe.SchemaVersion)
	case hasIndex && (mediaType == "" || IsIndex(mediaType)):
		return parseIndex(data)
	case hasManifest && (mediaType == "" || IsManifest(mediaType)):
		return parseManifest(data, artifacts)
	case mediaType != "" && !IsIndex(mediaType) && !IsManifest(mediaType):
		return Document{}, badDocument("manifest", "%w %q", ErrMediaType, mediaType)
	}
	return Document{}, badDocument("manifest", "%w: neither a manifest nor an index", ErrDocument)
}

func badDocument(what, format string, args ...any) error {
	return fault.New(fault.Invalid, "read "+what, "", format, args...)
}

func parseIndex(data []byte) (Document, error) {
	var x ocispec.Index
	if err := json.Unmarshal(data, &x); err != nil {
		return Document{}, badDocument("index", "%w: %w", ErrDocument, err)
	}
	if len(x.Manifests) > maxEntries {
		return Document{}, badDocument("index", "%w: %d manifests", ErrTooLarge, len(x.Manifests))
	}
	for i := range x.Manifests {
		if err := checkDescriptor("index", &x.Manifests[i], MaxManifest); err != nil {
			return Document{}, err
		}
	}
	return Document{Index: &x}, nil
}

func parseManifest(data []byte, artifacts bool) (Document, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Document{}, badDocument("manifest", "%w: %w", ErrDocument, err)
	}
	if t := m.Config.MediaType; !isImageConfig(t) && !artifacts {
		return Document{}, fault.New(fault.Unsupported, "read manifest", "", "%w %q of the config: it is an artifact of type %q and no image to run",
			ErrMediaType, t, Document{Manifest: &m}.ArtifactType())
	}
	most := int64(MaxConfig)
	if artifacts {
		most = 1 << 62
	}
	if err := checkDescriptor("manifest", &m.Config, most); err != nil {
		return Document{}, err
	}
	if m.Subject != nil {
		if err := checkDescriptor("manifest", m.Subject, 1<<62); err != nil {
			return Document{}, err
		}
	}
	if len(m.Layers) > maxLayers {
		return Document{}, badDocument("manifest", "%w: %d layers", ErrTooLarge, len(m.Layers))
	}
	for i := range m.Layers {
		if err := checkDescriptor("manifest", &m.Layers[i], 1<<62); err != nil {
			return Document{}, err
		}
		if artifacts {
			continue
		}
		if err := checkLayerType(&m.Layers[i]); err != nil {
			return Document{}, err
		}
	}
	return Document{Manifest: &m}, nil
}

func checkDescriptor(where string, d *ocispec.Descriptor, most int64) error {
	if err := content.CheckDigest(d.Digest); err != nil {
		return fault.Wrap("read "+where, "", err)
	}
	if d.Size < 0 || d.Size > most {
		return badDocument(where, "%w: %s is said to have %d bytes", ErrSize, d.Digest, d.Size)
	}
	return nil
}

func checkLayerType(d *ocispec.Descriptor) error {
	switch d.MediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		DockerLayer, DockerLayerGzip, DockerLayerZstd:
		return nil
	}
	if strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.") {
		return &fault.Error{Kind: fault.Unsupported, Op: "read manifest", Subject: d.Digest.String(), Err: ErrForeignLayer}
	}
	return fault.New(fault.Unsupported, "read manifest", d.Digest.String(), "%w %q of a layer", ErrMediaType, d.MediaType)
}

// ParseConfig reads and checks an image's config.
func ParseConfig(data []byte) (*v1.DockerOCIImage, error) {
	if len(data) > MaxConfig {
		return nil, badDocument("image config", "%w: more than %d bytes", ErrTooLarge, MaxConfig)
	}
	var c v1.DockerOCIImage
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, badDocument("image config", "%w: %w", ErrDocument, err)
	}
	if c.RootFS.Type != "layers" {
		return nil, badDocument("image config", "%w: rootfs.type is %.40q, not \"layers\"", ErrDocument, c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, badDocument("image config", "%w: %d layers", ErrTooLarge, len(c.RootFS.DiffIDs))
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := content.CheckDigest(d); err != nil {
			return nil, fault.Wrap("read image config", "rootfs.diff_ids", err)
		}
	}
	if c.OS == "" {
		c.OS = "linux"
	}
	if c.OS != "linux" {
		return nil, fault.New(fault.Unsupported, "read image config", "", "%w: it is for %.40q", ErrPlatform, c.OS)
	}
	return &c, nil
}
