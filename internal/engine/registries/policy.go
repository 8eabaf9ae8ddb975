package registries

import (
	"context"
	"sync/atomic"

	"berth/internal/signature"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// livePolicy is the signature policy in force. It can be replaced while pulls ask it.
type livePolicy struct {
	now atomic.Pointer[signature.Policy]
}

// Check asks the policy in force whether an image may be pulled.
func (p *livePolicy) Check(ctx context.Context, named reference.Named, d digest.Digest, src signature.Source) error {
	return p.now.Load().Check(ctx, named, d, src)
}
