package main

import (
	"berth/internal/engine"
)

// hooks are where berthd itself and the front for dockerd's flags differ.
type hooks struct {
	ready  func(ls []*listener)         // the API is served
	reload func(e *engine.Engine) error // on SIGHUP
	end    func(e *engine.Engine)       // the API is not served any more
}

func (h *hooks) onReady(ls []*listener) {
	if h.ready != nil {
		h.ready(ls)
	}
}

func (h *hooks) onEnd(e *engine.Engine) {
	if h.end != nil {
		h.end(e)
	}
}
