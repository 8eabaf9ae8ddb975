package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"io"

	"berth/internal/fault"
	"berth/internal/overlay"

	"golang.org/x/sys/unix"
)

// Bare returns the same root without anything that is mounted on it: what is in
// volumes is not the container's own.
func (r *Root) Bare() (*Root, error) {
	bare := &Root{dir: -1, space: -1, pid: -1}
	done := make(chan error, 1)
	overlay.OnSpoiltThread(func() {
		done <- func() (err error) {
			// Entering a mount namespace needs a working directory of one's own.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(r.space, unix.CLONE_NEWNS); err != nil {
				return err
			}
			bare.dir, err = unix.OpenTree(r.dir, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			return err
		}()
	})
	if err := <-done; err != nil {
		return nil, fault.New(fault.Internal, "look below mounts", "", "%w", err)
	}
	return bare, nil
}

// Export writes the whole root as one tar archive, with names relative to it.
func (r *Root) Export(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, bufferSize)
	p := &packer{ctx: ctx, tar: tar.NewWriter(out), buf: make([]byte, bufferSize), seen: make(map[inode]string)}
	dir, err := r.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fault.Wrap("open root", "", err)
	}
	defer unix.Close(dir)
	if err := p.members(dir, ""); err != nil {
		return err
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return out.Flush()
}
