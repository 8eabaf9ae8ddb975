package main

import (
	"berth/internal/engine"
)

// hooks are what the front for dockerd's flags does where berthd itself does
// nothing, or something else.
type hooks struct {
	ready  func(e *engine.Engine, ls []*listener) // the API is served
	reload func(e *engine.Engine) error           // instead of what berthd does on SIGHUP
	end    func(e *engine.Engine)                 // the API is not served any more
}

func (h *hooks) onReady(e *engine.Engine, ls []*listener) {
	if h.ready != nil {
		h.ready(e, ls)
	}
}

func (h *hooks) onReload(e *engine.Engine) error {
	if h.reload != nil {
		return h.reload(e)
	}
	return e.ReloadRegistries()
}

func (h *hooks) onEnd(e *engine.Engine) {
	if h.end != nil {
		h.end(e)
	}
}
