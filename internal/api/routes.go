package api

// route is one endpoint: a ServeMux pattern without the version, and its
// handler.
type route struct {
	pattern string
	serve   func(*exchange) error
}

// routes are the endpoints this engine offers; refusals has those it answers by
// name only.
var routes = []route{
	{"GET /_ping", ping},
	{"GET /version", getVersion},
	{"GET /info", getInfo},
	{"GET /events", getEvents},

	{"GET /containers/json", listContainers},
	{"POST /containers/create", createContainer},
	{"GET /containers/{id}/json", inspectContainer},
	{"GET /containers/{id}/logs", containerLogs},
	{"POST /containers/{id}/start", startContainer},
	{"POST /containers/{id}/stop", stopContainer},
	{"POST /containers/{id}/restart", restartContainer},
	{"POST /containers/{id}/kill", killContainer},
	{"POST /containers/{id}/pause", pauseContainer},
	{"POST /containers/{id}/unpause", unpauseContainer},
	{"POST /containers/{id}/rename", renameContainer},
	{"POST /containers/{id}/resize", resizeContainer},
	{"POST /containers/{id}/attach", attachContainer},
	{"POST /containers/{id}/wait", waitContainer},
	{"DELETE /containers/{id}", removeContainer},
	{"DELETE /containers/{id}/{alias}", removeLink},

	{"POST /containers/{id}/exec", createExec},
	{"POST /exec/{id}/start", startExec},
	{"POST /exec/{id}/resize", resizeExec},
	{"GET /exec/{id}/json", inspectExec},

	{"GET /images/json", listImages},
	{"GET /images/get", saveSeveral},
	{"GET /images/search", searchImages},
	{"POST /images/create", createImage},
	{"POST /images/load", loadImages},
	{"POST /images/prune", pruneImages},
	{"GET /images/{name...}", getImage},
	{"POST /images/{name...}", postImage},
	{"DELETE /images/{name...}", removeImage},
	{"GET /berth/images/{name...}", getBerthImage},
	{"POST /berth/images/{name...}", postBerthImage},
	{"POST /commit", commitContainer},

	{"POST /auth", login},
	{"GET /distribution/{name...}", inspectDistribution},

	{"GET /networks", listNetworks},
	{"GET /networks/{id}", inspectNetwork},

	{"GET /plugins", listPlugins},
}
