package api

import (
	"net/http"

	"berth/internal/engine/images"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
)

// commitBody is a container's configuration as clients of every served version
// send it.
type commitBody struct {
	*container.Config
	Cmd, Entrypoint words // a string instead of a list, in old clients
	OnBuild, Shell  words
}

// config returns what was sent: nothing, null and {} are nil.
func (b *commitBody) config() *container.Config {
	if b.Config == nil && b.Cmd == nil && b.Entrypoint == nil && b.OnBuild == nil && b.Shell == nil {
		return nil
	}
	if b.Config == nil {
		b.Config = &container.Config{}
	}
	c := b.Config
	c.Cmd, c.Entrypoint, c.OnBuild, c.Shell = b.Cmd, b.Entrypoint, b.OnBuild, b.Shell
	return c
}

// commitContainer makes an image of a container. The body may hold a
// configuration that goes before the container's own.
func commitContainer(x *exchange) error {
	o := images.CommitOptions{
		Container: x.query("container"),
		Comment:   x.query("comment"), Author: x.query("author"), Changes: x.queries("changes"), Pause: true,
	}
	if repo := x.query("repo"); repo != "" {
		o.Ref, _ = wholeName(repo, x.query("tag"))
	}
	if o.Container == "" {
		return fault.New(fault.Invalid, "", "", "the parameter container is missing")
	}
	if x.query("pause") != "" {
		o.Pause = x.flag("pause")
	}
	var body commitBody
	if err := x.decode(&body); err != nil {
		return err
	}
	o.Config = body.config()
	id, err := x.api.engine.ImageCommit(x.ctx(), o)
	if err != nil {
		return err
	}
	return x.reply(http.StatusCreated, common.IDResponse{ID: id})
}
