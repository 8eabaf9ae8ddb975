package test

import (
	"os/exec"
	"strings"
	"testing"
)

// docker-compose 1.29 speaks an old dialect of the API and is in many hands.
func TestDockerCompose(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Skip("needs docker-compose")
	}
	h := newEngine(t)
	file := h.write("project/docker-compose.yml", `version: "3"
services:
  db:
    image: `+busyboxImage+`
    command: sleep 1000
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
  web:
    image: `+busyboxImage+`
    command: httpd -f -p 80 -h /www
    depends_on: [db]
    ports: ["127.0.0.1:18082:80"]
    networks: [back, front]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
volumes: {data: {}}
networks:
  back: {internal: true}
  front: {ipam: {config: [{subnet: 10.91.0.0/24}]}}
`, 0o644)
	compose := func(args ...string) string {
		t.Helper()
		o := execute(t, h.within(append([]string{"docker-compose", "-f", file}, args...)...))
		if o.code != 0 {
			t.Fatalf("docker-compose %s: code %d: %s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
		}
		return o.stdout
	}
	compose("up", "-d")
	for _, name := range []string{"db", "database", "project_db_1"} {
		if out := compose("exec", "-T", "web", "ping", "-c", "1", "-W", "2", name); !strings.Contains(out, "1 packets received") {
			t.Errorf("by the name %s: %s", name, out)
		}
	}
	h.eventually("the published port answers", func() bool {
		out, _ := h.within("busybox", "wget", "-qO-", "http://127.0.0.1:18082/").Output()
		return string(out) == "hello from a container\n"
	})
	compose("up", "-d", "--scale", "db=2")
	if out := compose("ps"); strings.Count(out, "Up") != 3 {
		t.Errorf("ps: %s", out)
	}
	if out := compose("run", "--rm", "db", "echo", "ran"); strings.TrimSpace(out) != "ran" {
		t.Errorf("run: %q", out)
	}
	compose("restart", "-t", "0")
	if out := compose("top"); !strings.Contains(out, "sleep 1000") {
		t.Errorf("top: %s", out)
	}
	compose("down", "-v", "-t", "0")
	h.equal(h.ok("ps", "-aq")+h.ok("volume", "ls", "-q")+h.ok("network", "ls", "-q", "--filter", "type=custom"), "")
}
