package build

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/image"
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
// layers must be held, as those of a Result with FilesOnly are. Images go out as
// archives (type=docker, type=oci) through image.Store.Save.
//
// With split the files of each platform are in a directory of their own, such as
// linux_arm64; without it they are put together, which fails where two platforms
// have a file under one name.
func (b *Builder) ExportTar(ctx context.Context, outputs []Output, split bool, w io.Writer) error {
	const op = "export files"
	if len(outputs) == 1 && !split {
		return fault.Wrap(op, "", b.exportTree(ctx, outputs[0].Layers, w))
	}
	m := merger{out: tar.NewWriter(w), files: map[string]string{}, dirs: map[string]string{}}
	for _, out := range outputs {
		m.platform, m.dir = image.FormatPlatform(out.Platform), ""
		if split {
			m.dir = strings.ReplaceAll(m.platform, "/", "_") + "/"
			head := tar.Header{Typeflag: tar.TypeDir, Name: m.dir, Mode: 0o755, ModTime: time.Unix(0, 0)}
			if err := m.out.WriteHeader(&head); err != nil {
				return fault.Wrap(op, m.platform, err)
			}
		}
		r, in := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := b.exportTree(ctx, out.Layers, in)
			in.CloseWithError(err)
			done <- err
		}()
		err := m.add(r)
		r.CloseWithError(err)
		if made := <-done; err == nil {
			err = made
		}
		if err != nil {
			return fault.Wrap(op, m.platform, err)
		}
	}
	return fault.Wrap(op, "", m.out.Close())
}

func (b *Builder) exportTree(ctx context.Context, layers []digest.Digest, w io.Writer) error {
	return b.mounted(layers, func(root string) error { return layer.ExportTree(ctx, root, w) })
}

// merger puts the files of several platforms into one archive.
type merger struct {
	out      *tar.Writer
	platform string // whose files come now
	dir      string // where they go: "", or a directory of the platform
	// Names that are taken, and by whom. Directories are shared.
	files, dirs map[string]string
}

func (m *merger) add(r io.Reader) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, r) // what is after the last entry
			return err
		}
		if err != nil {
			return err
		}
		h.Name = m.dir + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = m.dir + h.Linkname
		}
		name := strings.TrimSuffix(h.Name, "/")
		other, dir := m.files[name], h.Typeflag == tar.TypeDir
		if !dir {
			other = cmp.Or(other, m.dirs[name])
		}
		switch {
		case other != "":
			return fault.New(fault.Conflict, "put together", h.Name, "%s has it, and so has %s", other, m.platform).
				WithHint("keep the platforms apart: leave platform-split=false out")
		case dir && m.dirs[name] != "":
			continue
		case dir:
			m.dirs[name] = m.platform
		default:
			m.files[name] = m.platform
		}
		if err := m.out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(m.out, in); err != nil {
			return err
		}
	}
}

// Share describes what the steps of a build gave, for other machines, and lists
// the layers that they made: see solve.Shared.
func (b *Builder) Share(res *Result) (doc []byte, layers []digest.Digest, err error) {
	return b.solver.Share((&solve.Solved{Steps: res.Steps}).Keys(), res.imports)
}
