package image

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Before docker 1.10 an image was a chain of layers, each with a JSON file that
// names its parent, and `repositories` gave names to the ends of chains.

// legacyLayer is the part of <id>/json that still means something.
type legacyLayer struct {
	ID              string                   `json:"id"`
	Parent          string                   `json:"parent"`
	Created         time.Time                `json:"created"`
	Author          string                   `json:"author"`
	Comment         string                   `json:"comment"`
	Architecture    string                   `json:"architecture"`
	OS              string                   `json:"os"`
	Config          *v1.DockerOCIImageConfig `json:"config"`
	ContainerConfig struct {
		Cmd []string
	} `json:"container_config"`
}

// legacyImages makes images from the chains that have a name.
func (a *archive) legacyImages() ([]Registration, error) {
	const file = "repositories"
	var repositories map[string]map[string]string
	if err := json.Unmarshal(a.documents[file], &repositories); err != nil {
		return nil, memberError(file, "%w: %w", ErrDocument, err)
	}
	byTop := map[string][]reference.NamedTagged{}
	for repository, tags := range repositories {
		for tag, id := range tags {
			named, err := parseTag(repository + ":" + tag)
			if err != nil {
				return nil, err
			}
			byTop[id] = append(byTop[id], named)
		}
	}
	if len(byTop) == 0 {
		return nil, memberError(file, "%w: it names no image", ErrDocument)
	}
	tops := make([]string, 0, len(byTop))
	for id := range byTop {
		tops = append(tops, id)
	}
	slices.Sort(tops)
	var images []Registration
	for _, id := range tops {
		config, err := a.legacyConfig(id)
		if err != nil {
			return nil, err
		}
		images = append(images, Registration{Config: config, Tags: byTop[id]})
	}
	return images, nil
}

// chain returns the layers from the base to id.
func (a *archive) chain(id string) ([]legacyLayer, error) {
	var chain []legacyLayer
	seen := map[string]bool{}
	for id != "" {
		if len(id) != 64 || !isHex(id) {
			return nil, memberError(id, "%w: not a layer id", ErrDocument)
		}
		if seen[id] {
			return nil, memberError(id+"/json", "parent %s %w", id, ErrCycle)
		}
		seen[id] = true
		if len(chain) >= maxLayers {
			return nil, memberError(id+"/json", "%w: more than %d layers", ErrTooLarge, maxLayers)
		}
		data, err := a.doc(id + "/json")
		if err != nil {
			return nil, err
		}
		var l legacyLayer
		if err := json.Unmarshal(data, &l); err != nil {
			return nil, memberError(id+"/json", "%w: %w", ErrDocument, err)
		}
		chain = append(chain, l)
		id = l.Parent
	}
	slices.Reverse(chain)
	return chain, nil
}

// legacyConfig writes the config of today's form for a chain.
func (a *archive) legacyConfig(top string) ([]byte, error) {
	chain, err := a.chain(top)
	if err != nil {
		return nil, err
	}
	last := chain[len(chain)-1]
	var image v1.DockerOCIImage
	image.Created = &last.Created
	image.Author = last.Author
	image.Platform = ocispec.Platform{OS: last.OS, Architecture: last.Architecture}
	if image.OS == "" {
		image.OS = "linux"
	}
	if image.Architecture == "" {
		image.Architecture = "amd64" // there was no other
	}
	if last.Config != nil {
		image.Config = *last.Config
	}
	image.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	id := top
	ids := make([]string, len(chain))
	for i := len(chain) - 1; i >= 0; i-- {
		ids[i], id = id, chain[i].Parent
	}
	for i, l := range chain {
		m, err := a.layer(ids[i] + "/layer.tar")
		if err != nil {
			return nil, err
		}
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, m.diffID)
		image.History = append(image.History, ocispec.History{
			Created: &chain[i].Created, Author: l.Author, Comment: l.Comment, CreatedBy: strings.Join(l.ContainerConfig.Cmd, " "),
		})
	}
	return json.Marshal(image)
}
