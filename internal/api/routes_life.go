package api

// lifeEngine is what the endpoints of routesLife call.
type lifeEngine interface {
	archiveEngine
	resourceEngine
	volumeEngine
	usageEngine
	metricsEngine
	whyEngine
	planEngine
}

// routesLife are the endpoints for what containers hold, use and share.
var routesLife = []route{
	{"HEAD /containers/{id}/archive", headArchive},
	{"GET /containers/{id}/archive", getArchive},
	{"PUT /containers/{id}/archive", putArchive},
	{"GET /containers/{id}/changes", containerChanges},
	{"GET /containers/{id}/export", exportContainer},
	{"GET /containers/{id}/stats", containerStats},
	{"GET /containers/{id}/top", topContainer},
	{"POST /containers/{id}/update", updateContainer},
	{"GET /berth/containers/{id}/why", containerWhy},
	{"POST /berth/plan", planRemovals},

	{"GET /volumes", listVolumes},
	{"POST /volumes/create", createVolume},
	{"POST /volumes/prune", pruneVolumes},
	{"GET /volumes/{name}", inspectVolume},
	{"DELETE /volumes/{name}", removeVolume},

	{"POST /networks/create", createNetwork},
	{"POST /networks/prune", pruneNetworks},
	{"DELETE /networks/{id}", removeNetwork},
	{"POST /networks/{id}/connect", connectNetwork},
	{"POST /networks/{id}/disconnect", disconnectNetwork},

	{"POST /containers/prune", pruneContainers},
	{"GET /system/df", diskUsage},

	{"GET /containers/{id}/attach/ws", attachWebsocket},
	{"GET /metrics", getMetrics},
}
