package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Verify reads the layer's tree and record anew, compares them with the diffID,
// and the tree's files, owners, modes, times and attributes with what the tar
// says about them. What differs is ErrDigest and names the file. A layer that
// is not Exact is fault.Unsupported. The caller holds the layer.
func (s *Store) Verify(ctx context.Context, diffID digest.Digest) error {
	const op = "verify layer"
	l, err := s.Stat(diffID)
	if err != nil {
		return err
	}
	t, err := openTree(filepath.Join(s.dir(diffID), "tree"))
	if err != nil {
		return fault.Wrap(op, diffID.String(), err)
	}
	defer t.close()
	v := &verifier{tree: t, layer: l, wrong: map[string]error{}}
	r, w := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		err := s.export(ctx, op, diffID, w)
		exported <- err
		w.CloseWithError(err)
	}()
	seen := v.run(tar.NewReader(r))
	if seen == nil {
		io.Copy(io.Discard, r) // its error is the exporter's
	}
	r.CloseWithError(seen)
	if err := <-exported; err != nil && seen == nil {
		return err
	}
	return fault.Wrap(op, diffID.String(), seen)
}

// verifier compares a tree with the tar that it was made of. An archive may say
// something else about a path later, so that what is wrong is only known at the
// end.
type verifier struct {
	tree  *tree
	layer Layer
	wrong map[string]error // by real path
}

// mostWrong is how many differences are gathered before it is clear that they
// are some.
const mostWrong = 1 << 17

func (v *verifier) run(tr *tar.Reader) error {
	for len(v.wrong) < mostWrong {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil // the exporter knows better
		}
		if v.layer.Replaced < ReplacedPaths {
			v.entry(h, tr)
		}
	}
	// What happens to a file changes its directory, too: the deepest tells most.
	worst, deepest := "", -1
	for p := range v.wrong {
		if depth := strings.Count(p, "/"); depth > deepest || depth == deepest && p < worst {
			worst, deepest = p, depth
		}
	}
	return v.wrong[worst]
}

// entry compares one entry and remembers the outcome.
func (v *verifier) entry(h *tar.Header, data io.Reader) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return
	}
	p, err := cleanName(h.Name)
	if err != nil || aufsOwn(p) {
		return
	}
	parent, base := split(p)
	fd, real, err := v.tree.dir(parent, false)
	key := p
	if err == nil {
		key = join(real, base)
		delete(v.wrong, key)
		if strings.HasPrefix(base, whiteoutPrefix) {
			err = v.whiteout(fd, base)
		} else {
			err = v.compare(h, fd, base, data)
		}
	}
	if err != nil {
		v.wrong[key] = fault.New(fault.Internal, "compare entry", quote(h.Name), "%w: %w", ErrDigest, err).WithHint(damagedHint)
	}
}

func (v *verifier) whiteout(fd int, base string) error {
	hidden, err := opaque(fd)
	if hidden || err != nil {
		return err
	}
	if base == whiteoutOpaque {
		return fmt.Errorf("its directory does not hide what is below")
	}
	_, err = lookAt(fd, base[len(whiteoutPrefix):]) // or whatever the layer itself has there
	return err
}

// compare compares an entry with the file base in the directory fd.
func (v *verifier) compare(h *tar.Header, fd int, base string, data io.Reader) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return v.link(h, &st)
	}
	mode := uint32(h.Mode)&0o7777 | fileType(h.Typeflag)
	if h.Typeflag == tar.TypeSymlink {
		mode = unix.S_IFLNK | 0o777
	}
	if st.Mode != mode {
		return fmt.Errorf("mode %o, was %o", st.Mode, mode)
	}
	if int64(st.Uid) != int64(h.Uid) || int64(st.Gid) != int64(h.Gid) {
		return fmt.Errorf("owner %d:%d, was %d:%d", st.Uid, st.Gid, h.Uid, h.Gid)
	}
	// What a file system does not take it takes for its nearest, or else exactly.
	const first, last = -1 << 31, 1 << 33
	if at := timespec(h.ModTime); at != st.Mtim && at.Sec >= first && at.Sec < last {
		return fmt.Errorf("modified at %d.%09d, was at %d.%09d", st.Mtim.Sec, st.Mtim.Nsec, at.Sec, at.Nsec)
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if target, err := readlinkat(fd, base); err != nil || target != h.Linkname {
			return fmt.Errorf("leads to %s, led to %s", quote(target), quote(h.Linkname))
		}
	case tar.TypeChar, tar.TypeBlock:
		if dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)); dev != st.Rdev {
			return fmt.Errorf("device %d:%d, was %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev), h.Devmajor, h.Devminor)
		}
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if st.Size != h.Size {
			return fmt.Errorf("%d bytes, had %d", st.Size, h.Size)
		}
		if isSparse(h) { // the record has these, so the tree's have not been read
			if err := sameContent(fd, base, data); err != nil {
				return err
			}
		}
	}
	return v.attributes(h, fd, base)
}

func (v *verifier) attributes(h *tar.Header, fd int, base string) error {
	for name, value := range xattrs(h) {
		buf := make([]byte, len(value)+1)
		n, err := unix.Lgetxattr(procPath(fd)+"/"+base, name, buf)
		if err != nil && v.layer.SkippedXattrs > 0 {
			continue // was not taken when it was unpacked
		}
		if err != nil || string(buf[:n]) != value {
			return fmt.Errorf("attribute %q is another", name)
		}
	}
	return nil
}

// link compares a hard link with its target. When files were replaced, the
// target's name may be another file's by now.
func (v *verifier) link(h *tar.Header, st *unix.Stat_t) error {
	if v.layer.Replaced > ReplacedNothing {
		return nil
	}
	target, err := cleanName(h.Linkname)
	if err != nil {
		return err
	}
	dir, base := split(target)
	fd, _, err := v.tree.dir(dir, false)
	if err != nil {
		return err
	}
	ino, err := inode(fd, base)
	if err == nil && ino != st.Ino {
		err = fmt.Errorf("no link to %s any more", quote(h.Linkname))
	}
	return err
}

func fileType(typeflag byte) uint32 {
	switch typeflag {
	case tar.TypeDir:
		return unix.S_IFDIR
	case tar.TypeChar:
		return unix.S_IFCHR
	case tar.TypeBlock:
		return unix.S_IFBLK
	case tar.TypeFifo:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}

// sameContent compares a file with what data yields.
func sameContent(dirfd int, base string, data io.Reader) error {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	have, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for offset := int64(0); ; {
		n, err := io.ReadFull(data, want)
		if n > 0 {
			m, err := unix.Pread(fd, have[:n], offset)
			if err != nil || m != n || !bytes.Equal(have[:n], want[:n]) {
				return fmt.Errorf("its content differs near byte %d", offset)
			}
			offset += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
