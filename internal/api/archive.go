package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"berth/internal/engine"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

// archiveEngine is what the endpoints call that copy files into and out of
// containers.
type archiveEngine interface {
	ContainerStatPath(ctx context.Context, ref, path string) (container.PathStat, error)
	ContainerArchive(ctx context.Context, ref, path string) (st container.PathStat, write func(io.Writer) error, closeRoot func(), err error)
	ContainerExtract(ctx context.Context, ref, path string, o engine.ExtractOptions, in io.Reader) error
}

// pathStatHeader describes the file that an archive is made of.
const pathStatHeader = "X-Docker-Container-Path-Stat"

// archivePath reads the path parameter, which all three need.
func (x *exchange) archivePath() (string, error) {
	path := x.query("path")
	if path == "" {
		return "", fault.New(fault.Invalid, "", "", "bad parameter: path cannot be empty")
	}
	if strings.ContainsRune(path, 0) {
		return "", fault.New(fault.Invalid, "", "", "bad parameter: path %q: no file has such a name", path)
	}
	return path, nil
}

func (x *exchange) describePath(st container.PathStat) error {
	text, err := json.Marshal(st)
	if err != nil {
		return fault.Wrap("encode answer", "", err)
	}
	x.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(text))
	return nil
}

func headArchive(x *exchange) error {
	path, err := x.archivePath()
	if err != nil {
		return err
	}
	st, err := x.api.engine.ContainerStatPath(x.ctx(), x.path("id"), path)
	if err != nil {
		return err
	}
	if err := x.describePath(st); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

func getArchive(x *exchange) error {
	path, err := x.archivePath()
	if err != nil {
		return err
	}
	ctx, cancel := x.stream()
	defer cancel()
	st, write, closeRoot, err := x.api.engine.ContainerArchive(ctx, x.path("id"), path)
	if err != nil {
		return err
	}
	defer closeRoot()
	if err := x.describePath(st); err != nil {
		return err
	}
	x.Header().Set("Content-Type", "application/x-tar")
	if err := write(x); err != nil {
		if !x.started {
			x.Header().Del("Content-Type")
			x.Header().Del(pathStatHeader)
		}
		return err
	}
	return nil
}

func putArchive(x *exchange) error {
	path, err := x.archivePath()
	if err != nil {
		return err
	}
	o := engine.ExtractOptions{KeepKind: x.flag("noOverwriteDirNonDir"), CopyUser: x.flag("copyUIDGID")}
	if err := x.api.engine.ContainerExtract(x.ctx(), x.path("id"), path, o, x.r.Body); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}
