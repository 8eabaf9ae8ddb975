package api

// lifeEngine is what the endpoints of routesLife call.
type lifeEngine interface {
	archiveEngine
}

// routesLife are the endpoints for what containers hold, use and share.
var routesLife = []route{
	{"HEAD /containers/{id}/archive", headArchive},
	{"GET /containers/{id}/archive", getArchive},
	{"PUT /containers/{id}/archive", putArchive},
}
