package cli

import "strings"

// Headings of the help, in its order.
const (
	groupRun    = "Run containers"
	groupLook   = "Look at them"
	groupImages = "Images"
	groupSystem = "Everything else"
	groupGroups = "Groups of commands"
)

var groupOrder = []string{groupRun, groupLook, groupImages, groupSystem, groupGroups}

// topLevel names the commands in the order of the help.
const topLevel = "run exec create start stop restart pause unpause kill attach wait rename update cp rm " +
	"ps logs why top stats port inspect diff events " +
	"build pull push images history tag rmi commit export save load import login logout search " +
	"version info dial-stdio "

// lookUp returns a command by its name, "GROUP NAME" for one that exists in a
// group alone, nil when there is none. It is a function and no table because the
// one that was asked for is all that a start should pay for.
func lookUp(name string) *command {
	if c := containerCommand(name); c != nil {
		return c
	}
	if c := imageCommand(name); c != nil {
		return c
	}
	if c := managementCommand(name); c != nil {
		return c
	}
	if c := buildCommand(name); c != nil {
		return c
	}
	return systemCommand(name)
}

func containerCommand(name string) *command {
	switch name {
	case "run":
		return &command{"run", groupRun, "[FLAGS] IMAGE [COMMAND [ARG...]]", "Make a container and run a command in it", runExample, buildRun}
	case "exec":
		return &command{"exec", groupRun, "[FLAGS] CONTAINER COMMAND [ARG...]", "Run another command in a running container", execExample, buildExec}
	case "create":
		return &command{"create", groupRun, "[FLAGS] IMAGE [COMMAND [ARG...]]", "Make a container without starting it", "", buildCreate}
	case "start":
		return &command{"start", groupRun, "[FLAGS] CONTAINER...", "Start containers", "  berth start web\n  berth start -ai shell", buildStart}
	case "stop":
		return &command{"stop", groupRun, "[FLAGS] CONTAINER...", "Ask containers to stop, and kill those that do not", "  berth stop -t 30 web", buildStop}
	case "restart":
		return &command{"restart", groupRun, "[FLAGS] CONTAINER...", "Stop containers and start them again", "", buildRestart}
	case "kill":
		return &command{"kill", groupRun, "[FLAGS] CONTAINER...", "Send a signal to containers", "  berth kill -s HUP web", buildKill}
	case "attach":
		return &command{"attach", groupRun, "[FLAGS] CONTAINER", "Connect this terminal to a running container", "", buildAttach}
	case "wait":
		return &command{"wait", groupRun, "CONTAINER...", "Wait until containers end and print their exit codes", "", buildWait}
	case "rm":
		return &command{"rm", groupRun, "[FLAGS] CONTAINER...", "Remove containers", "  berth rm -f web\n  berth rm $(berth ps -aq -f status=exited)", buildRm}
	case "pause":
		return &command{"pause", groupRun, "CONTAINER...", "Freeze containers", "", buildPause}
	case "unpause":
		return &command{"unpause", groupRun, "CONTAINER...", "Let frozen containers go on", "", buildUnpause}
	case "rename":
		return &command{"rename", groupRun, "CONTAINER NAME", "Give a container another name", "", buildRename}
	case "update":
		return &command{"update", groupRun, "[FLAGS] CONTAINER...", "Change the limits of containers while they run", updateExample, buildUpdate}
	case "cp":
		return &command{"cp", groupRun, "[FLAGS] SOURCE TARGET", "Copy files into a container or out of one", cpExample, buildCp}
	case "top":
		return &command{"top", groupLook, "CONTAINER [PS OPTION...]", "List the processes of a container", "  berth top web\n  berth top web -o pid,rss,args", buildTop}
	case "stats":
		return &command{"stats", groupLook, "[FLAGS] [CONTAINER...]", "Show what containers use, as they use it", statsExample, buildStats}
	case "port":
		return &command{"port", groupLook, "CONTAINER [PORT[/PROTOCOL]]", "Show where a container's ports are published", "", buildPort}
	case "diff":
		return &command{"diff", groupLook, "CONTAINER", "List the files that a container changed", "", buildDiff}
	case "ps":
		return &command{"ps", groupLook, "[FLAGS]", "List containers", psExample, buildPs}
	case "logs":
		return &command{"logs", groupLook, "[FLAGS] CONTAINER", "Show what a container wrote", logsExample, buildLogs}
	case "why":
		return &command{"why", groupLook, "[FLAGS] CONTAINER", "Explain why a container ended, does not start or fares badly", whyExample, buildWhy}
	case "inspect":
		return &command{"inspect", groupLook, "[FLAGS] NAME...", "Show everything about containers, images, networks or volumes", inspectExample, buildInspect}
	}
	return nil
}

func imageCommand(name string) *command {
	switch name {
	case "pull":
		return &command{"pull", groupImages, "[FLAGS] IMAGE", "Fetch an image from a registry", pullExample, buildPull}
	case "push":
		return &command{"push", groupImages, "[FLAGS] IMAGE", "Send an image to a registry", pushExample, buildPush}
	case "images":
		return &command{"images", groupImages, "[FLAGS] [NAME]", "List images", imagesExample, buildImages}
	case "history":
		return &command{"history", groupImages, "[FLAGS] IMAGE", "Show the steps that an image was made of", "", buildHistory}
	case "tag":
		return &command{"tag", groupImages, "IMAGE NAME", "Give an image another name", "  berth tag app:1 registry.example/team/app:1", buildTag}
	case "rmi":
		return &command{"rmi", groupImages, "[FLAGS] IMAGE...", "Remove images", "", buildRmi}
	case "commit":
		return &command{"commit", groupImages, "[FLAGS] CONTAINER [NAME]", "Make an image of a container's files", commitExample, buildCommit}
	case "export":
		return &command{"export", groupImages, "[FLAGS] CONTAINER", "Write a container's files to an archive", "  berth export -o files.tar web", buildExport}
	case "save":
		return &command{"save", groupImages, "[FLAGS] IMAGE...", "Write images to an archive", saveExample, buildSave}
	case "load":
		return &command{"load", groupImages, "[FLAGS]", "Load images from an archive", loadExample, buildLoad}
	case "import":
		return &command{"import", groupImages, "[FLAGS] FILE|URL|- [NAME]", "Make an image of a file tree", importExample, buildImport}
	case "login":
		return &command{"login", groupImages, "[FLAGS] [REGISTRY]", "Tell a registry who you are, and remember it", loginExample, buildLogin}
	case "logout":
		return &command{"logout", groupImages, "[REGISTRY]", "Forget who you are to a registry", "", buildLogout}
	case "search":
		return &command{"search", groupImages, "[FLAGS] TERM", "Search a registry for images", "  berth search --limit 5 nginx", buildSearch}
	case "image verify":
		return &command{"verify", groupImages, "[FLAGS] IMAGE...", "Read images anew and compare them with their digests", verifyExample, buildVerify}
	case "image tree":
		return &command{"tree", groupImages, "[FLAGS]", "Show which layers images share", "", buildTree}
	case "image sign":
		return &command{"sign", groupImages, "[FLAGS] IMAGE", "Sign an image that a registry has", signExample, buildSign}
	case "image keygen":
		return &command{"keygen", groupImages, "[FLAGS]", "Make a key that signs images", "", buildKeygen}
	case "image referrers":
		return &command{"referrers", groupImages, "[FLAGS] IMAGE", "List what a registry has about an image: signatures, SBOMs", "", buildReferrers}
	case "image prune":
		return &command{"prune", groupImages, "[FLAGS]", "Remove images that nothing uses", pruneExample, buildImagePrune}
	}
	return nil
}

// managementCommand knows what exists within groups alone.
func managementCommand(name string) *command {
	switch name {
	case "container prune":
		return &command{"prune", groupRun, "[FLAGS]", "Remove containers that do not run", "", buildContainerPrune}
	case "network ls":
		return &command{"ls", groupRun, "[FLAGS]", "List networks", "", buildNetworkLs}
	case "network create":
		return &command{"create", groupRun, "[FLAGS] NETWORK", "Make a network", networkCreateExample, buildNetworkCreate}
	case "network rm":
		return &command{"rm", groupRun, "[FLAGS] NETWORK...", "Remove networks", "", buildNetworkRm}
	case "network inspect":
		return &command{"inspect", groupRun, "[FLAGS] NETWORK...", "Show everything about networks", "", buildNetworkInspect}
	case "network connect":
		return &command{"connect", groupRun, "[FLAGS] NETWORK CONTAINER", "Attach a container to a network", "  berth network connect --alias db backend postgres", buildNetworkConnect}
	case "network disconnect":
		return &command{"disconnect", groupRun, "[FLAGS] NETWORK CONTAINER", "Detach a container from a network", "", buildNetworkDisconnect}
	case "network prune":
		return &command{"prune", groupRun, "[FLAGS]", "Remove networks that no container uses", "", buildNetworkPrune}
	case "volume ls":
		return &command{"ls", groupRun, "[FLAGS]", "List volumes", "", buildVolumeLs}
	case "volume create":
		return &command{"create", groupRun, "[FLAGS] [VOLUME]", "Make a volume", "", buildVolumeCreate}
	case "volume rm":
		return &command{"rm", groupRun, "[FLAGS] VOLUME...", "Remove volumes", "", buildVolumeRm}
	case "volume inspect":
		return &command{"inspect", groupRun, "[FLAGS] VOLUME...", "Show everything about volumes", "", buildVolumeInspect}
	case "volume prune":
		return &command{"prune", groupRun, "[FLAGS]", "Remove volumes that no container uses", "", buildVolumePrune}
	case "system df":
		return &command{"df", groupRun, "[FLAGS]", "Show what takes how much of the disk", "", buildDf}
	case "system prune":
		return &command{"prune", groupRun, "[FLAGS]", "Remove everything that nothing uses", "  berth system prune --all --explain", buildSystemPrune}
	}
	return nil
}

func systemCommand(name string) *command {
	switch name {
	case "version":
		return &command{"version", groupSystem, "[FLAGS]", "Print the versions of berth and of the engine", "", buildVersion}
	case "info":
		return &command{"info", groupSystem, "[FLAGS]", "Describe the engine and its machine", "", buildInfo}
	case "events":
		return &command{"events", groupLook, "[FLAGS]", "Show what happens in the engine, as it happens", eventsExample, buildEvents}
	case "dial-stdio":
		return &command{"dial-stdio", "", "", "Connect standard input and output to the engine", "", buildDialStdio}
	case "registry":
		return &command{"registry", groupGroups, "COMMAND [ARG...]", "Run a registry of your own", "  berth registry serve --help", buildRegistry}
	}
	return nil
}

// group is a word that gathers commands behind it, as docker has them.
type group struct {
	name, short string
	// members are the commands: NAME[|ALIAS...][=TARGET], where TARGET is the
	// command of the top level that it is, the same as NAME when it is left out.
	members string
}

// topGroups names the groups in the order of the help.
const topGroups = "container image network volume system registry"

func groupNamed(name string) *group {
	switch name {
	case "container":
		return &group{name, "Manage containers", "attach commit cp create diff exec export inspect kill logs " +
			"ls|list|ps=ps pause port prune rename restart rm|remove run start stats stop top unpause update wait why"}
	case "image":
		return &group{name, "Manage images, verify and sign them", "ls|list=images build pull push history inspect tag rm|remove=rmi prune " +
			"save load import verify tree sign keygen referrers"}
	case "network":
		return &group{name, "Manage networks", "ls|list create rm|remove inspect connect disconnect prune"}
	case "volume":
		return &group{name, "Manage volumes", "ls|list create rm|remove inspect prune"}
	case "builder", "buildx": // docker's words for what is behind build
		return &group{name, "Manage builds", "build prune du=buildx_du history=buildx_history"}
	case "system":
		return &group{name, "Manage the engine and what it keeps", "df prune info events dial-stdio"}
	}
	return nil
}

// memberOf takes one of a group's members apart.
func memberOf(text string) (names []string, target string) {
	left, target, ok := strings.Cut(text, "=")
	names = strings.Split(left, "|")
	if !ok {
		target = names[0]
	}
	return names, target
}

// has reports whether a group knows a name.
func (g *group) has(name string) bool {
	for member := range strings.FieldsSeq(g.members) {
		names, _ := memberOf(member)
		for _, one := range names {
			if one == name {
				return true
			}
		}
	}
	return false
}
