package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/url"
	"time"

	"berth/internal/fault"
)

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, ref, name string) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/rename", url.Values{"name": {name}}, nil, nil)
}

// ContainerPause freezes a container.
func (c *Client) ContainerPause(ctx context.Context, ref string) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/pause", nil, nil, nil)
}

// ContainerUnpause lets a frozen container go on.
func (c *Client) ContainerUnpause(ctx context.Context, ref string) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/unpause", nil, nil, nil)
}

// UpdateRequest holds new limits of a container; zero values stay as they are.
type UpdateRequest struct {
	Resources
	RestartPolicy RestartPolicy `json:",omitzero"`
}

// ContainerUpdate changes a container's limits and restart policy. It returns
// warnings.
func (c *Client) ContainerUpdate(ctx context.Context, ref string, req *UpdateRequest) ([]string, error) {
	out, err := fetch[struct{ Warnings []string }](ctx, c, "POST", "/containers/"+segment(ref)+"/update", nil, req)
	return out.Warnings, err
}

// TopResponse lists a container's processes.
type TopResponse struct {
	Titles    []string
	Processes [][]string
}

// ContainerTop lists a container's processes as ps does with the arguments.
func (c *Client) ContainerTop(ctx context.Context, ref, arguments string) (TopResponse, error) {
	q := url.Values{}
	setText(q, "ps_args", arguments)
	return fetch[TopResponse](ctx, c, "GET", "/containers/"+segment(ref)+"/top", q, nil)
}

// Kinds of changes.
const (
	ChangeModified = 0
	ChangeAdded    = 1
	ChangeDeleted  = 2
)

// Change is one difference of a container's files to its image's.
type Change struct {
	Path string
	Kind int
}

// ContainerChanges lists what a container changed in its files.
func (c *Client) ContainerChanges(ctx context.Context, ref string) ([]Change, error) {
	return fetch[[]Change](ctx, c, "GET", "/containers/"+segment(ref)+"/changes", nil, nil)
}

// ContainerExport writes a container's files to w as an archive.
func (c *Client) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	return c.download(ctx, &request{method: "GET", path: "/containers/" + segment(ref) + "/export"}, w)
}

// PathStat is what an engine says about a path in a container.
type PathStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       fs.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"`
}

// statHeader carries a PathStat.
const statHeader = "x-docker-container-path-stat"

func pathStat(h header) (PathStat, error) {
	var s PathStat
	raw, err := base64.StdEncoding.DecodeString(h.Get(statHeader))
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fault.New(fault.Unavailable, "engine", "", "sent no description of the path")
	}
	return s, nil
}

func archiveRequest(method, ref, path string) *request {
	return &request{method: method, path: "/containers/" + segment(ref) + "/archive", query: url.Values{"path": {path}}.Encode()}
}

// PathStat describes a path in a container. A symbolic link is not followed.
func (c *Client) PathStat(ctx context.Context, ref, path string) (PathStat, error) {
	a, err := c.do(ctx, archiveRequest("HEAD", ref, path))
	if err != nil {
		return PathStat{}, err
	}
	defer a.Close()
	return pathStat(a.header)
}

// CopyFrom returns an archive of a path in a container, which begins with the
// path's last element, and what the path is.
func (c *Client) CopyFrom(ctx context.Context, ref, path string) (io.ReadCloser, PathStat, error) {
	a, err := c.do(ctx, archiveRequest("GET", ref, path))
	if err != nil {
		return nil, PathStat{}, err
	}
	s, err := pathStat(a.header)
	if err != nil {
		_ = a.Close()
		return nil, s, err
	}
	return a, s, nil
}

// CopyTo extracts an archive in a directory of a container. keepOwners keeps the
// numbers of users and groups as the container knows them.
func (c *Client) CopyTo(ctx context.Context, ref, path string, archive io.Reader, keepOwners bool) error {
	q := url.Values{"path": {path}, "noOverwriteDirNonDir": {"true"}}
	if keepOwners {
		q.Set("copyUIDGID", "true")
	}
	a, err := c.do(ctx, &request{method: "PUT", path: "/containers/" + segment(ref) + "/archive", query: q.Encode(),
		stream: archive, contentType: "application/x-tar"})
	if err != nil {
		return err
	}
	return a.Close()
}
