package test

import "testing"

func TestLogDriverLocalAndTag(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "--name", "one", "--log-driver", "local", "--log-opt", "max-size=1m", busyboxImage, "sh", "-c", "echo out; echo err >&2")
	h.equal(h.docker("logs", "one").stdout, "out\n")
	h.equal(h.docker("logs", "one").stderr, "err\n")
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.LogConfig.Type}}{{.LogPath}}", "one"), "local")
	h.ok("run", "--name", "two", "--log-opt", "tag={{.Name}}/{{.ImageName}}", busyboxImage, "echo", "hi")
	h.equal(h.ok("logs", "--details", "two"), "tag=two/"+busyboxImage+" hi")
	h.refused("invalid log option tag", "run", "--rm", "--log-opt", "tag={{.Nonsense}}", busyboxImage, "true")
	h.refused("json-file, local, none and syslog", "run", "--rm", "--log-driver", "fluentd", busyboxImage, "true")
	h.ok("rm", "one", "two")
}
