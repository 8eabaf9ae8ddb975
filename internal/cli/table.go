package cli

// Headings of the help, in its order.
const (
	groupRun    = "Run containers"
	groupLook   = "Look at them"
	groupImages = "Images"
	groupSystem = "Everything else"
)

var groupOrder = []string{groupRun, groupLook, groupImages, groupSystem}

// commands is the table of commands, in the order of the help. It is filled in
// by init because the commands refer to it themselves.
var commands []command

func init() {
	commands = []command{
		{"run", "", groupRun, "[FLAGS] IMAGE [COMMAND [ARG...]]", "Make a container and run a command in it", runExample, buildRun},
		{"exec", "", groupRun, "[FLAGS] CONTAINER COMMAND [ARG...]", "Run another command in a running container", execExample, buildExec},
		{"create", "", groupRun, "[FLAGS] IMAGE [COMMAND [ARG...]]", "Make a container without starting it", "", buildCreate},
		{"start", "", groupRun, "[FLAGS] CONTAINER...", "Start containers", "  berth start web\n  berth start -ai shell", buildStart},
		{"stop", "", groupRun, "[FLAGS] CONTAINER...", "Ask containers to stop, and kill those that do not", "  berth stop -t 30 web", buildStop},
		{"restart", "", groupRun, "[FLAGS] CONTAINER...", "Stop containers and start them again", "", buildRestart},
		{"kill", "", groupRun, "[FLAGS] CONTAINER...", "Send a signal to containers", "  berth kill -s HUP web", buildKill},
		{"attach", "", groupRun, "[FLAGS] CONTAINER", "Connect this terminal to a running container", "", buildAttach},
		{"wait", "", groupRun, "CONTAINER...", "Wait until containers end and print their exit codes", "", buildWait},
		{"rm", "", groupRun, "[FLAGS] CONTAINER...", "Remove containers", "  berth rm -f web\n  berth rm $(berth ps -aq -f status=exited)", buildRm},
		{"ps", "", groupLook, "[FLAGS]", "List containers", psExample, buildPs},
		{"logs", "", groupLook, "[FLAGS] CONTAINER", "Show what a container wrote", logsExample, buildLogs},
		{"inspect", "", groupLook, "[FLAGS] NAME...", "Show everything about containers or images", inspectExample, buildInspect},
		{"pull", "", groupImages, "[FLAGS] IMAGE", "Fetch an image from a registry", pullExample, buildPull},
		{"images", "", groupImages, "[FLAGS] [NAME]", "List images", imagesExample, buildImages},
		{"load", "", groupImages, "[FLAGS]", "Load images from an archive", loadExample, buildLoad},
		{"import", "", groupImages, "[FLAGS] FILE|URL|- [NAME]", "Make an image of a file tree", importExample, buildImport},
		{"tag", "", groupImages, "IMAGE NAME", "Give an image another name", "  berth tag app:1 registry.example/team/app:1", buildTag},
		{"rmi", "", groupImages, "[FLAGS] IMAGE...", "Remove images", "", buildRmi},
		{"version", "", groupSystem, "[FLAGS]", "Print the versions of berth and of the engine", "", buildVersion},
		{"info", "", groupSystem, "[FLAGS]", "Describe the engine and its machine", "", buildInfo},
		{"dial-stdio", "", "", "", "Connect standard input and output to the engine", "", buildDialStdio},
	}
}
