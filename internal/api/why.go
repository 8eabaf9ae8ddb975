package api

import (
	"context"
	"net/http"

	"berth/internal/wire"
)

// whyEngine is what the endpoint calls that explains containers.
type whyEngine interface {
	ContainerWhy(ctx context.Context, ref string) (*wire.Why, error)
}

func containerWhy(x *exchange) error {
	w, err := x.api.engine.ContainerWhy(x.ctx(), x.path("id"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, w)
}
