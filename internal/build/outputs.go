package build

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/overlay"
)

// mounted calls fn with a path that leads to the layers' root, as long as fn runs.
// It is mounted nowhere: nothing is left of it, whatever happens.
func (b *Builder) mounted(layers []digest.Digest, fn func(root string) error) error {
	lower, err := b.o.Layers.Lower(layers)
	if err != nil {
		return err
	}
	empty, err := b.o.Layers.Lower(nil)
	if err != nil {
		return err
	}
	if lower[0] != empty[0] {
		lower = append(lower, empty[0]) // the kernel wants two
	} else {
		return fn(lower[0])
	}
	fd, err := overlay.Mount(overlay.Stack{Lower: lower}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fn(fmt.Sprintf("/proc/self/fd/%d/.", fd))
}

// ExportTar writes the files of a result as one tar: --output type=tar, and
// type=local, which the client unpacks with the rights of whoever uses it. The
// layers must be held, as a Result with FilesOnly does. Images go out as archives
// (type=docker, type=oci) through image.Store.Save.
func (b *Builder) ExportTar(ctx context.Context, layers []digest.Digest, w io.Writer) error {
	err := b.mounted(layers, func(root string) error { return layer.ExportTree(ctx, root, w) })
	return fault.Wrap("export files", "", err)
}

// Share describes what the steps of a build gave, for other machines, and lists
// the layers that they made: see solve.Shared.
func (b *Builder) Share(res *Result) (doc []byte, layers []digest.Digest, err error) {
	return b.solver.Share((&solve.Solved{Steps: res.Steps}).Keys(), res.imports)
}
