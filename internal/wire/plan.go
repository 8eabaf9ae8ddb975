package wire

// PlanRequest is the body of POST /berth/plan: removals, of which the answer, a Plan,
// says what they would do. Nothing is removed.
type PlanRequest struct {
	Prunes []PlanPrune  `json:",omitempty"` // one after the other
	Remove *PlanRemoval `json:",omitempty"` // after them
}

// Kinds of what a plan is about.
const (
	PlanContainers = "container"
	PlanNetworks   = "network"
	PlanVolumes    = "volume"
	PlanImages     = "image"
	PlanCache      = "build-cache"
)

// PlanPrune is a prune of one kind, with what its own endpoint takes.
type PlanPrune struct {
	Kind    string
	Filters map[string]map[string]bool `json:",omitempty"`
	// Of the build cache:
	All                        bool  `json:",omitempty"` // also what images have in common with it
	MaxUsed, MinFree, Reserved int64 `json:",omitempty"` // bytes
}

// PlanRemoval is the removal of several things of one kind by name, each as its
// own endpoint does it.
type PlanRemoval struct {
	Kind    string // any but the build cache
	Refs    []string
	Force   bool `json:",omitempty"`
	Volumes bool `json:",omitempty"` // of containers: with their anonymous volumes
	NoPrune bool `json:",omitempty"` // of images: keep those they were made from
}

// Plan is what removals would do.
type Plan struct {
	Remove         []PlanItem    `json:",omitempty"`
	Keep           []PlanItem    `json:",omitempty"`
	Refused        []PlanRefusal `json:",omitempty"` // of what was named
	SpaceReclaimed int64         // bytes that come back
}

// PlanItem is one thing that goes or stays.
type PlanItem struct {
	Kind   string
	ID     string
	Names  []string `json:",omitempty"`
	Size   int64    // bytes that come back with it after those before it, or that it takes and shares with nobody
	Reason string   // why it goes, or why it is kept
}

// PlanRefusal is how the removal of something that was named would be answered.
type PlanRefusal struct {
	Ref     string
	Status  int // of the answer
	Message string
}
