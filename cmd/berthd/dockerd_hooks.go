package main

import (
	"berth/internal/engine"
)

// hooks are where berthd itself and the front for dockerd's flags differ.
type hooks struct {
	ready  func(e *engine.Engine, ls []*listener) // the API is served
	reload func(e *engine.Engine) error           // on SIGHUP
	end    func(e *engine.Engine)                 // the API is not served any more
}

func (h *hooks) onReady(e *engine.Engine, ls []*listener) {
	if h.ready != nil {
		h.ready(e, ls)
	}
}

func (h *hooks) onEnd(e *engine.Engine) {
	if h.end != nil {
		h.end(e)
	}
}
