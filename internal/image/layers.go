package image

import (
	"context"
	"reflect"

	"berth/internal/layer"
)

// Sweep deletes all layers and blobs that nobody needs, in both stores. All
// their owners must be registered.
func (s *Store) Sweep(ctx context.Context) error {
	_, err := s.layers.CollectAll()
	if err != nil {
		return err
	}
	_, err = s.content.CollectAll()
	return err
}

// exact reports whether a layer's tar can be written again from its tree.
func exact(l layer.Layer) bool {
	f := reflect.ValueOf(l).FieldByName("Exact")
	return f.IsValid() && f.Bool()
}
