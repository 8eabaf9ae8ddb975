package test

import (
	"slices"
	"testing"
)

// Containers are the same to docker's clients. The short form has the first few
// dialogues, with bad input and life and death between them.
func TestContainersBesideDocker(t *testing.T) {
	t.Parallel()
	b := newBeside(t)
	b.allowed = containerDifferences
	b.busyboxTar()
	(&dockerPeer{h: b.host, client: b.berthBin, socket: b.socket()}).base()
	(&dockerPeer{h: b.host, client: "docker", socket: "unix://" + b.peer}).base()
	dialogues := containerDialogues[:4]
	if everything() {
		dialogues = slices.Concat(containerDialogues, lifeDialogues, []dialogue{created()})
	}
	answers := 0
	for _, d := range dialogues {
		answers += b.talk(d)
	}
	b.checkAllowed()
	t.Logf("%d answers compared", answers)
}

// containerDifferences are the differences that stay.
var containerDifferences = []difference{
	// What differs from machine to machine and from moment to moment.
	{"*", "body*.Pid", "numbers of processes"},
	{"*", "body*Size*", "bytes on disk are counted in another way"},
	{"*", "body*.Created", "a second may pass between the two"},
	{"*", "body.GraphDriver.*", "layers are elsewhere, and a root is mounted for its container alone"},
	{"*", "body.Driver", "the name that newer versions give to the driver"},
	{"GET /containers/json*", "body*.Names", "names that nobody chose"},

	// What newer versions of docker do as we do.
	{"*", "body.HostConfig.KernelMemory*", "gone since 1.42 and 1.52"},
	{"*", "body.HostConfig.MaskedPaths", "there are more since"},
	{"*", "body*.HostConfig.NetworkMode", "default is bridge since"},
	{"*", "body.HostConfig.RestartPolicy.Name", "none is no since"},
	{"*", "body.HostConfig.Runtime", "shown before the first start since"},
	{"*", "body*.NetworkSettings.Networks.*.DNSNames", "since 1.44"},
	{"*", "body*.NetworkSettings.Networks.*.GwPriority", "since 1.48"},
	{"*", "body.NetworkSettings.Sandbox*", "of a container that does not run there is none since"},
	{"*", "body*.Ports*.IP", "empty where there is none since"},
	{"*", "body.os_type", "since 1.52"},
	{"GET /containers/*/logs?*", "header Content-Type", "since 1.42, and of no harm before"},
	{"POST /containers/*/wait*", "body.Error", "not there when there is none since"},
	{"GET /containers//json", "*", "no path is made another one since"},
	{"*trailing", "*", "refused since"},
	{"GET /exec/$h*", "body.ExitCode", "127 for a program that is not there since"},
	{"POST /exec/$l/start {}", "status", "a conflict since"},

	{"GET /containers/made*", "body.Config.ExposedPorts*", "published ports are exposed since"},
	{"GET /containers/made*", "body.HostConfig.PortBindings*", "no binding is an empty one since, and no protocol tcp"},
	{"GET /containers/made*", "body*.MacAddress", "an endpoint's since"},

	// What is better so.
	{"*/containers/*refused*", "status", "refused when it is made, and not when it is started"},
	{"POST /containers/create {*ExposedPorts*container:one*", "status", "exposed ports open nothing, so they are in nobody's way"},
	{"GET /containers/one/json", "body.NetworkSettings.Networks.net.*", "names and networks are known before the first start"},
	{"GET /containers/json*", "body*.NetworkSettings.Networks.net.Aliases", "a list has them, too"},
	{"GET /containers/dud-*", "body.Host*Path", "of a container that did not start there is nothing yet"},
	{"GET /containers/dud-*", "body.ResolvConfPath", "of a container that did not start there is nothing yet"},
	{"GET /containers/dud-*", "body.NetworkSettings.Networks.bridge.*", "of a container that did not start there is nothing yet"},
	{"GET /containers/dud-*", "body.State.Error", "in our words"},
	{"GET /containers/*/stats*", "body.memory_stats.stats.*", "every counter that the kernel has"},
	{"GET /containers/*/stats*", "body.pids_stats.limit", "none is a number since"},
	{"GET /containers/made*", "body.HostConfig.Mounts*.ReadOnlyNonRecursive", "what older clients mean is written out"},
	{"GET /containers/made*", "body.HostConfig.MemorySwappiness", "shown as it was asked for"},
	{"GET /containers/made*", "body.HostConfig.SecurityOpt", "no labels are switched off that are not there"},
	{"GET /containers/made*", "body.HostConfig.ReadonlyPaths", "an empty list, and not null"},
	{"GET /containers/made*", "body.HostConfig.BlkioWeight", "shown as it was asked for"},
	{"GET /containers/made*", "body.AppArmorProfile", "there is none"},
	{"GET /containers/made*", "body.Config.Hostname", "that of the host where it is the host's"},
	{"GET /containers/made*", "body.NetworkSettings.Networks*", "no network is the network none"},
	{"*", "body.HostConfig.Cgroup", "tells where the cgroup is"},
	{"*", "body.HostConfig.IpcMode", "before 1.40 shareable also for those that send no HostConfig"},
	{"*", "body.LogPath", "known before the first start"},
	{"*", "body*.NetworkSettings*IPv6*", "the default network has addresses of both kinds"},
	{"*", "body*.NetworkSettings*.IPPrefixLen", "the default network is another one"},
	{"*", "body*.Mounts*.Mode", "a mode that nobody asked for is not shown"},
	{"*", "header Api-Version", "every answer says so"},
	{"*", "header Docker-Experimental", "every answer of HTTP says so"},
	{"*", "header Ostype", "every answer says so"},
	{"*POST /containers/nosuch/attach*", "*", "an error is JSON here, too"},
	{"*attach?*detachKeys=nosuch", "*", "an error is JSON here, too"},
	{"GET /containers/*/attach/ws", "*", "an error is JSON here, too"},
	{"POST /containers/create?name=five*", "status", "refused by name"},
	{"POST /containers/create?name=seven*", "*", "refused before it is started"},
	{"*", "body.ContainersDeleted", "an empty list, and not null"},
	{"POST /containers/*/update*", "body.Warnings", "an empty list, and not null"},
	{"POST /containers/create {\"Image\":\"\",\"Cmd\":[\"true\"]}", "*", "there is no container without an image"},
	{"POST /containers/create {\"Cmd\":[\"true\"]}", "*", "there is no container without an image"},
	{"POST /containers/one/exec {\"Cmd\":\"true\"}", "*", "a string is taken for a list of one, as in create"},
	{"POST /containers/one/update", "*", "a body that is not there changes nothing"},
	{"POST /containers/one/resize*", "*", "there is no terminal to resize"},
	{"GET /containers/one/logs?stdout=1&tail=x", "*", "what is no number is refused, and not taken for all"},
	{"POST /exec/$e/start {}", "*", "an error has a status"},
	{"*POST /exec/$*", "body", "errors are on stderr, in our words; docker lacks a capability here"},
	{"GET /exec/$i/json", "body.ExitCode", "docker lacks a capability here"},
	{"POST /exec/$k/start", "status", "a conflict goes before a body that is missing"},
	{"GET /exec/$l/json", "*", "an exec is known as long as its container"},
	{"HEAD /containers/one/archive?path=.", "header X-Docker*", "the root's name is /"},
	{"GET /containers/one/export", "file *", "what is only there to be mounted over"},
	{"GET /containers/one/changes", "body*", "files come into mounted file systems, not below them"},
	{"GET /images/*/json", "body.*", "the image, not how it came about"},
	{"POST /containers/one/update {\"BlkioWeight\":5}", "*", "out of range"},
	{"POST /containers/one/update {\"KernelMemory\":50000000}", "*", "refused by name"},
	{"POST /containers/one/update {\"NosuchField\":1}", "*", "refused by name"},
}
