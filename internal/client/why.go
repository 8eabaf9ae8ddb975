package client

import (
	"context"
	"encoding/json"
)

// ContainerWhy asks Berth's engine how a container ended, why it does not start or
// how it fares: a wire.Why. Other engines do not know the question.
func (c *Client) ContainerWhy(ctx context.Context, ref string) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/berth/containers/"+segment(ref)+"/why", nil, nil)
}
