// Package images holds the use cases of images and of the registries that they come
// from. It exists because most of what an engine is asked about images concerns no
// container and no network: it works on the stores of images, on what is known of the
// containers made from them, and tells the bus of events what was done.
package images

import (
	"context"

	"berth/internal/engine/intake"
	"berth/internal/image"
	"berth/internal/transfer"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/image"
)

// StorageDriver is how clients call the way roots are put together.
const StorageDriver = "overlayfs"

// Remote gives the client of registries that is in force.
type Remote interface {
	Transfers() *transfer.Client
}

// Service answers what is asked about images.
type Service struct {
	stock  *Stock
	remote Remote
	intake *intake.Ledger
}

// New returns the use cases of a stock of images. What they bring in is noted in the
// ledger.
func New(stock *Stock, remote Remote, ledger *intake.Ledger) *Service {
	return &Service{stock, remote, ledger}
}

// ImageTag gives an image a further name.
func (s *Service) ImageTag(ctx context.Context, src, target string) error {
	if err := s.stock.Images.Tag(ctx, src, target); err != nil {
		return err
	}
	if img, err := s.stock.Images.Get(ctx, target); err == nil {
		s.stock.Tell(events.ActionTag, img.ID.String(), familiarTagged(target), img)
	}
	return nil
}

// ImageRemove removes a name of an image, or the image.
func (s *Service) ImageRemove(ctx context.Context, ref string, force, prune bool) ([]api.DeleteResponse, error) {
	known := s.stock.lineage(ctx, ref)
	return s.stock.Remove(ctx, ref, image.RemoveOptions{Force: force, Prune: prune}, known...)
}
