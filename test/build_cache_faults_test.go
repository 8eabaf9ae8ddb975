package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBuildCacheAtAForeignRegistry(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"docker-registry", "skopeo"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	m := newMachines(t)
	const address = "127.0.0.1:5002"
	m.background("docker-registry", "serve", m.write("registry.yml",
		"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: "+m.path("foreign")+"\nhttp:\n  addr: "+address+"\n", 0o600))
	m.eventually("docker's registry answers", func() bool { return m.within("curl", "-s", "http://"+address+"/v2/").Run() == nil })
	dir := m.context("app", map[string]string{"source": "one\n", "Dockerfile": cacheText + "RUN --mount=type=cache,target=/kept date > /kept/f\n"})
	m.build("--cache-to", "type=registry,mode=max,mounts=true,ref="+address+"/app:cache", dir)
	copied := execute(t, m.within("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
		"docker://"+address+"/app:cache", "docker://"+m.registry+"/copied:cache"))
	if copied.code != 0 {
		t.Fatalf("skopeo: %s", copied.stderr)
	}
	for _, ref := range []string{address + "/app:cache", m.registry + "/copied:cache"} {
		m.berth("--host", m.second, "build", "cache", "prune", "-af")
		if out := m.there("--cache-from", ref, dir); found(out, ref) != 6 {
			t.Errorf("from %s:\n%s", ref, out)
		}
	}
}

func TestBuildCacheThatCannotBeHad(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	dir := m.context("app", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nRUN true\n"})
	const away = "127.0.0.1:9/app:cache"
	contains(t, m.build("--cache-from", away, "--cache-from", "type=registry,ref="+m.registry+"/nothing", dir), "cache-from "+away, "refused", "cache-from "+m.registry+"/nothing")
	if o := m.run("build", "-t", "built", "--cache-to", away, dir); o.code == 0 || !strings.Contains(o.stderr, "export build cache to "+away) {
		t.Errorf("code %d, %s", o.code, o.stderr)
	}
	m.berth("inspect", "built")
	contains(t, m.build("--cache-to", "type=registry,ignore-error=true,ref="+away, dir), "cache-to "+away)

	// What is no cache is said to be none.
	m.berth("tag", "built", m.registry+"/image")
	m.berth("push", m.registry+"/image")
	put := func(name, mediaType, text string) {
		t.Helper()
		cmd := m.within("curl", "-sfX", "PUT", "-H", "Content-Type: "+mediaType, "--data-binary", text, "http://"+m.registry+"/v2/"+name+"/manifests/latest")
		if o := execute(t, cmd); o.code != 0 {
			t.Fatalf("%s: %d %s", name, o.code, o.stderr)
		}
	}
	const empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	for _, name := range []string{"theirs", "chart"} {
		cmd := m.within("sh", "-c", `printf '{}' | curl -sfX POST --data-binary @- "http://`+m.registry+`/v2/`+name+`/blobs/uploads/?digest=`+empty+`"`)
		if o := execute(t, cmd); o.code != 0 {
			t.Fatalf("%s: %d %s", name, o.code, o.stderr)
		}
	}
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"%","digest":"` + empty + `","size":2},"layers":[]}`
	put("theirs", "application/vnd.oci.image.manifest.v1+json", strings.Replace(manifest, "%", "application/vnd.buildkit.cacheconfig.v0", 1))
	put("chart", "application/vnd.oci.image.manifest.v1+json", strings.Replace(manifest, "%", "application/vnd.cncf.helm.config.v1+json", 1))
	out := m.there("--cache-from", m.registry+"/image", "--cache-from", m.registry+"/theirs", "--cache-from", m.registry+"/chart", dir)
	contains(t, out, "the image has no build cache in it", "it is a cache that BuildKit made", "it is no build cache but an artifact of type \"application/vnd.cncf.helm")
}

func TestBuildCacheOfTwoAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	ref, kept := m.registry+"/app:cache", m.path("kept")
	var wait sync.WaitGroup
	for _, host := range []string{m.socket(), m.second} {
		for _, name := range []string{"a", "b"} {
			dir := m.context(name, map[string]string{"source": "one\n", "Dockerfile": cacheText + "RUN echo " + name + "\n"})
			wait.Go(func() {
				o := m.run("--host", host, "build", "--cache-from", ref, "--cache-to", "type=registry,mode=max,ref="+ref, "--cache-to", "type=local,mode=max,dest="+kept, dir)
				if o.code != 0 {
					t.Errorf("code %d, %s", o.code, o.stderr)
				}
			})
		}
	}
	wait.Wait()
	for _, host := range []string{m.socket(), m.second} {
		m.berth("--host", host, "build", "cache", "prune", "-af")
	}
	for _, from := range []string{"type=registry,ref=" + ref, "type=local,src=" + kept} {
		a, b := m.there("--no-cache-filter", "x", "--cache-from", from, m.path("a")), m.there("--cache-from", from, m.path("b"))
		if found(a, m.registry)+found(a, kept) < 5 && found(b, m.registry)+found(b, kept) < 5 {
			t.Errorf("from %s:\n%s\n%s", from, a, b)
		}
		m.berth("--host", m.second, "build", "cache", "prune", "-af")
	}
}

// Whoever is killed in the middle, the engine or the client, leaves nothing that
// the next build stumbles over, and a directory keeps the cache that it had.
func TestBuildCacheSurvivesKills(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	ref, kept := m.registry+"/app:cache", m.path("kept")
	text := "FROM " + busyboxImage + "\nRUN --mount=type=cache,id=tools,target=/k head -c 9000000 /dev/urandom | tee /k/f > /f\nCOPY source /source\nRUN cat /source > /copied\n"
	dir := m.context("app", map[string]string{"Dockerfile": text, "source": "0"})
	both := []string{"--cache-to", "type=registry,mode=max,mounts=true,ref=" + ref, "--cache-to", "type=local,mode=max,mounts=true,dest=" + kept}
	m.build(append(both, dir)...)
	for i := range 8 {
		m.write("app/source", strings.Repeat("x", i+1), 0o644)
		args := append([]string{"--progress", "plain", "--cache-from", "type=local,mounts=true,src=" + kept}, both...)
		cmd, _ := m.begin("#", append(args, dir)...)
		time.Sleep(time.Duration(i*i) * 5 * time.Millisecond) // some instant
		if i%2 == 0 {
			m.killEngine()
			_ = cmd.Wait()
			m.startEngine()
		} else {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		out := m.there("--cache-from", "type=local,src="+kept, dir)
		if found(out, kept) == 0 && !strings.Contains(out, "CACHED") || strings.Contains(out, "cache-from") {
			t.Fatalf("after kill %d:\n%s", i, out)
		}
		m.berth("--host", m.second, "build", "cache", "prune", "-af")
	}
	m.build(append(both, dir)...)
	if out := m.there("--cache-from", ref, dir); found(out, ref) != 3 {
		t.Errorf("at the end:\n%s", out)
	}
	m.nothingLeft()
	if left, _ := filepath.Glob(filepath.Join(kept, ".berth-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	// What is unpacked and packed goes through here.
	m.eventually("nothing is on its way", func() bool {
		left, _ := filepath.Glob(m.path("data", "content", "ingest", "*"))
		return len(left) == 0
	})
}

func TestBuildCacheMountsTravel(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	const mount = "RUN --mount=type=cache,id=tools,target=/k "
	ref, kept := m.registry+"/app:cache", m.path("kept")
	text := "FROM " + busyboxImage + "\n" + mount
	fill := m.context("fill", map[string]string{"Dockerfile": text + "echo first > /k/f; mkdir /k/d; chown 5:6 /k/d; ln -s ../../../../etc /k/l\n"})
	look := func(from, arg string) string {
		t.Helper()
		dir := m.context("look", map[string]string{"Dockerfile": text + "cat /k/f; stat -c %u:%g /k/d; readlink /k/l; echo " + arg + "\n"})
		return m.there("--cache-from", from, dir)
	}
	m.build("--cache-to", "type=registry,mounts=true,ref="+ref, "--cache-to", "type=local,mounts=true,dest="+kept, fill)
	if o := m.run("--host", m.second, "build", m.context("none", map[string]string{"Dockerfile": text + "cat /k/f\n"})); o.code == 0 {
		t.Error("the second machine has it already")
	}
	m.berth("--host", m.second, "build", "cache", "prune", "-af")
	for i, from := range []string{"type=registry,mounts=true,ref=" + ref, "type=local,mounts=true,src=" + kept} {
		contains(t, look(from, "from "+from), " first\n", " 5:6\n", " ../../../../etc\n")
		contains(t, m.berth("--host", m.second, "build", "cache", "ls", "--mounts"), "cache mount tools")
		if i == 0 {
			m.berth("--host", m.second, "build", "cache", "prune", "-af")
		}
	}
	// What was used here since is newer, and who does not ask for mounts gets none.
	m.there(m.context("newer", map[string]string{"Dockerfile": text + "echo second > /k/f\n"}))
	contains(t, look("type=registry,mounts=true,ref="+ref, "newer"), " second\n")
	m.berth("--host", m.second, "build", "cache", "prune", "-af")
	dir := m.context("without", map[string]string{"Dockerfile": text + "[ ! -e /k/f ]\n"})
	m.there("--cache-from", "type=registry,ref="+ref, dir)
}
