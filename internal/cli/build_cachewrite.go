package cli

import (
	"archive/tar"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cacheExport is a build cache on its way into a directory. What comes, and links
// to what is there already, is gathered in a directory of its own inside; only
// when all is there does the cache become what the directory holds, at once.
type cacheExport struct {
	*cacheDir
	tag   string
	have  []string
	stage string // its name in root
	lock  *os.File
	pipe  *io.PipeWriter // nil: nothing has come yet
	done  chan error
}

// stagePrefix begins the names of directories of exports under way. Each is
// locked by its maker: what can be locked belongs to nobody any more.
const stagePrefix = ".berth-"

func beginCacheExport(dest, tag string) (*cacheExport, error) {
	dest, err := absolute(dest)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dest, 0o777); err != nil {
		return nil, err
	}
	dir, err := openCacheDir(dest)
	if err != nil {
		return nil, err
	}
	x := &cacheExport{cacheDir: dir, tag: orLatest(tag), stage: stagePrefix + rand.Text()}
	if ok, err := dir.isLayout(); err != nil || !ok {
		dir.close()
		if err == nil {
			err = wrong("%s is neither empty nor a directory with build caches", dest).WithHint("name another one")
		}
		return nil, err
	}
	if err := x.begin(); err != nil {
		x.abandon()
		return nil, err
	}
	return x, nil
}

// begin makes the stage, with links to the blobs that are there.
func (x *cacheExport) begin() error {
	unlock, err := x.exclusively()
	if err != nil {
		return err
	}
	defer unlock()
	x.sweep()
	if err := x.root.Mkdir(x.stage, 0o777); err != nil {
		return err
	}
	if x.lock, err = x.root.Open(x.stage); err != nil {
		return err
	}
	if err := unix.Flock(int(x.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	for _, digest := range x.whole() {
		from, err := blobPath(digest)
		if err != nil {
			return err
		}
		if x.root.Link(from, x.staged(from)) == nil {
			x.have = append(x.have, digest)
		}
	}
	slices.Sort(x.have)
	return nil
}

func (x *cacheExport) staged(blob string) string { return x.stage + "/" + path.Base(blob) }

// exclusively waits until nobody else changes the directory.
func (x *cacheExport) exclusively() (unlock func(), err error) {
	f, err := x.root.Open(".")
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", x.path, err)
	}
	return func() { f.Close() }, nil
}

// sweep removes what exports left that were killed.
func (x *cacheExport) sweep() {
	names, _ := x.names(".")
	for _, name := range names {
		if !strings.HasPrefix(name, stagePrefix) || name == x.stage {
			continue
		}
		f, err := x.root.Open(name)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = x.root.RemoveAll(name)
		}
		f.Close()
	}
}

func (x *cacheExport) names(dir string) ([]string, error) {
	f, err := x.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Write takes the archive that the engine makes.
func (x *cacheExport) Write(p []byte) (int, error) {
	if x.pipe == nil {
		var r *io.PipeReader
		r, x.pipe = io.Pipe()
		x.done = make(chan error, 1)
		go func() {
			err := x.receive(r)
			r.CloseWithError(orClosed(err))
			x.done <- err
		}()
	}
	return x.pipe.Write(p)
}

// receive unpacks the archive into the stage.
func (x *cacheExport) receive(r io.Reader) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		name := path.Base(h.Name)
		sum, isBlob := strings.CutPrefix(h.Name, layoutBlobs+"/")
		if isBlob {
			if _, err := blobPath("sha256:" + sum); err != nil {
				return err
			}
		} else if h.Name != layoutIndex {
			return fmt.Errorf("the engine sends a file %.100q", h.Name)
		}
		f, err := x.root.OpenFile(x.stage+"/"+name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(io.MultiWriter(f, hash), in)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if isBlob && hex.EncodeToString(hash.Sum(nil)) != sum {
			return fmt.Errorf("the bytes of %s are others", sum)
		}
	}
}

// finish puts everything into its place. Before the index is replaced, nothing
// has changed for anybody who reads; after that, what no cache needs goes.
func (x *cacheExport) finish() error {
	if x.pipe == nil {
		return errors.New("the engine sent no cache")
	}
	x.pipe.Close()
	err := <-x.done
	if x.pipe = nil; err != nil {
		return err
	}
	unlock, err := x.exclusively()
	if err != nil {
		return err
	}
	defer unlock()
	if err := x.settle(); err != nil {
		return err
	}
	x.collect()
	return nil
}

func (x *cacheExport) settle() error {
	ours, err := x.file(x.stage + "/" + layoutIndex)
	if err != nil {
		return err
	}
	index, err := x.merged(ours)
	if err != nil {
		return err
	}
	if err := x.root.MkdirAll(layoutBlobs, 0o777); err != nil {
		return err
	}
	names, err := x.names(x.stage)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == layoutIndex {
			continue
		}
		// A link to what is there already stays where it is.
		if err := x.root.Rename(x.stage+"/"+name, layoutBlobs+"/"+name); err != nil {
			return err
		}
	}
	if err := x.root.WriteFile(x.stage+"/"+layoutFile, []byte(layoutText), 0o644); err != nil {
		return err
	}
	if err := x.root.WriteFile(x.stage+"/"+layoutIndex+".new", index, 0o644); err != nil {
		return err
	}
	if err := unix.Syncfs(int(x.lock.Fd())); err != nil { // the index names only what is on the disk
		return err
	}
	if err := x.root.Rename(x.stage+"/"+layoutFile, layoutFile); err != nil {
		return err
	}
	return x.root.Rename(x.stage+"/"+layoutIndex+".new", layoutIndex)
}

// merged puts our cache among those that the directory has, in place of the one of
// the same tag.
func (x *cacheExport) merged(ours []byte) ([]byte, error) {
	type whole struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType,omitempty"`
		Manifests     []map[string]any `json:"manifests"`
	}
	var mine, all whole
	if err := json.Unmarshal(ours, &mine); err != nil || len(mine.Manifests) != 1 {
		return nil, errors.Join(err, errors.New("the engine's index is not one of one cache"))
	}
	if data, err := x.file(layoutIndex); err == nil {
		if err := json.Unmarshal(data, &all); err != nil {
			return nil, fmt.Errorf("%s: %w", layoutIndex, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all.Manifests = slices.DeleteFunc(all.Manifests, func(m map[string]any) bool {
		notes, _ := m["annotations"].(map[string]any)
		return notes[layoutName] == x.tag
	})
	mine.Manifests[0]["annotations"] = map[string]string{layoutName: x.tag}
	mine.Manifests = append(all.Manifests, mine.Manifests[0])
	return json.Marshal(mine)
}

// collect removes blobs that no cache of the directory names. That something
// stays is no reason to fail.
func (x *cacheExport) collect() {
	index, err := x.index()
	if err != nil {
		return
	}
	used := map[string]int64{}
	if x.referenced(index.Manifests, 0, used) != nil {
		return // what cannot be read may name anything
	}
	names, _ := x.names(layoutBlobs)
	for _, name := range names {
		if _, ok := used["sha256:"+name]; !ok {
			_ = x.root.Remove(layoutBlobs + "/" + name)
		}
	}
}

// abandon removes what is under way, if anything.
func (x *cacheExport) abandon() {
	if x.pipe != nil {
		x.pipe.CloseWithError(io.ErrUnexpectedEOF)
		<-x.done
	}
	_ = x.root.RemoveAll(x.stage)
	if x.lock != nil {
		x.lock.Close()
	}
	x.close()
}
