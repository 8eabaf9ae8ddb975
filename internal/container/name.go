package container

import (
	"math/rand/v2"
	"strconv"

	"berth/internal/fault"
)

var adjectives = [...]string{
	"anchored", "becalmed", "blue", "bold", "breezy", "briny", "bright", "brisk", "buoyant", "calm",
	"clear", "coastal", "crisp", "deep", "drifting", "eager", "ebbing", "fair", "fleet", "foggy",
	"gallant", "gentle", "gliding", "grand", "hardy", "hearty", "homeward", "jolly", "keen", "laden",
	"leeward", "limber", "lively", "lofty", "loyal", "lucky", "mellow", "merry", "moored", "neat",
	"nimble", "northern", "placid", "polar", "proud", "quick", "quiet", "ready", "rolling", "salty",
	"seaworthy", "serene", "shipshape", "silver", "snug", "southern", "stalwart", "steady", "stout", "sunlit",
	"swift", "tidal", "trim", "true", "upright", "weathered", "western", "windward", "yare", "zesty",
}

var nouns = [...]string{
	"albatross", "anchor", "atoll", "ballast", "barge", "barque", "bay", "beacon", "boatswain", "bollard",
	"bowline", "breaker", "breakwater", "brig", "buoy", "cape", "capstan", "captain", "caravel", "catamaran",
	"channel", "clipper", "cockle", "compass", "coral", "cove", "cutter", "davit", "deckhand", "dinghy",
	"dock", "dolphin", "dory", "estuary", "fathom", "ferry", "fjord", "forecastle", "frigate", "galleon",
	"galley", "gangway", "gull", "halyard", "harbour", "haven", "hawser", "headland", "helm", "hull",
	"inlet", "jetty", "jib", "junk", "kayak", "keel", "ketch", "lagoon", "lantern", "lighthouse",
	"lugger", "mainsail", "mariner", "marlin", "mast", "mizzen", "mooring", "narwhal", "navigator", "oar",
	"osprey", "otter", "packet", "pelican", "pennant", "petrel", "pier", "pilot", "pinnace", "porpoise",
	"prow", "puffin", "quay", "reef", "rigging", "rudder", "sail", "schooner", "seal", "sextant",
	"shoal", "skiff", "skipper", "slipway", "sloop", "spar", "spinnaker", "starfish", "stevedore", "strait",
	"tern", "tide", "tiller", "topsail", "trawler", "tugboat", "wharf", "whistle", "windlass", "yawl",
}

// RandomName returns a name of two words from the harbour. From the fourth
// attempt on it carries a number, so that a free one is found however many
// containers there are.
func RandomName(attempt int) string {
	name := adjectives[rand.IntN(len(adjectives))] + "_" + nouns[rand.IntN(len(nouns))]
	if attempt > 3 {
		name += strconv.Itoa(rand.IntN(10 << min(attempt, 24)))
	}
	return name
}

// CheckName refuses names that can't be a container's, in docker's words.
func CheckName(name string) error {
	ok := len(name) >= 2
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = letter || (i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if !ok {
		return fault.New(fault.Invalid, "", "",
			"Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}
