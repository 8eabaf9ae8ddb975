package build

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/build/solve"
	"berth/internal/fault"
)

// canary is a directory of the host that must stay as it is.
type canary struct {
	t   *testing.T
	dir string
	was map[string]string
}

func newCanary(t *testing.T) *canary {
	c := &canary{t: t, dir: t.TempDir()}
	os.Mkdir(filepath.Join(c.dir, "d"), 0o755)
	writeFile(t, filepath.Join(c.dir, "f"), "host")
	writeFile(t, filepath.Join(c.dir, "d/g"), "host")
	c.was = c.look()
	return c
}

func (c *canary) look() map[string]string {
	out := map[string]string{}
	filepath.WalkDir(c.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		data, _ := os.ReadFile(p)
		out[p] = fi.Mode().String() + fi.ModTime().String() + string(data)
		return nil
	})
	return out
}

func (c *canary) check() {
	c.t.Helper()
	now := c.look()
	for p, was := range c.was {
		if now[p] != was {
			c.t.Errorf("%s on the host changed: %q, was %q", p, now[p], was)
		}
	}
	if len(now) != len(c.was) {
		c.t.Errorf("the host has %d files, had %d", len(now), len(c.was))
	}
}

// TestMountSourcesStayInside: CVE-2024-23651, CVE-2024-1753, CVE-2024-9407: the
// source of a bind or cache mount is a link to the host.
func TestMountSourcesStayInside(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	evil := "FROM busybox AS evil\nRUN ln -s / /root-link && ln -s " + c.dir + " /link && mkdir -p /a && ln -s ../../../../../../.." + c.dir + " /a/up && ln -s " + c.dir + "/f /file\nFROM busybox\n"
	for _, run := range []string{
		"RUN --mount=from=evil,source=/link,target=/m,rw rm -rf /m/*",
		"RUN --mount=from=evil,source=/a/up,target=/m,rw rm -rf /m/*",
		"RUN --mount=from=evil,source=/file,target=/m,rw echo x > /m",
		"RUN --mount=from=evil,source=/root-link" + c.dir + ",target=/m,rw rm -rf /m/*",
		"RUN --mount=type=cache,id=l,from=evil,source=/link,target=/m rm -rf /m/*",
		"RUN --mount=type=cache,id=m,from=evil,source=/root-link" + c.dir + ",target=/m rm -rf /m/*",
		"COPY --from=evil /link/f /stolen",
		"COPY --from=evil /root-link" + c.dir + "/f /stolen",
	} {
		o := h.try(Request{Text: []byte(evil + run + "\n")})
		if o.err == nil {
			t.Errorf("%s: succeeds, though there is no such thing in the image", run)
		}
		c.check()
	}
	h.clean()
}

// TestMountTargetsAreCleanedInsideOnly: CVE-2024-23652: the step replaces the
// directory of a mount target by a link to the host.
func TestMountTargetsAreCleanedInsideOnly(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	for _, run := range []string{
		"RUN --mount=type=tmpfs,target=/x/d mv /x /y && ln -s " + c.dir + " /x",
		"RUN --mount=type=tmpfs,target=/x/d/g mv /x/d /z; rm -rf /x; ln -s " + c.dir + " /x; true",
		"RUN --mount=type=secret,id=s,target=/x/f mv /x /y; ln -s " + c.dir + " /x",
		"RUN mv /etc /e; ln -s " + c.dir + " /etc; true",
	} {
		if o := h.try(Request{Text: []byte("FROM busybox\n" + run + "\n"), Secrets: secrets{"s": "x"}}); o.err != nil {
			t.Logf("%s: %v", run, o.err) // also fine
		}
		c.check()
	}
	h.clean()
}

// TestTargetsThatAreLinks: the image's own links decide where a mount goes, inside
// the image, and they are there afterwards.
func TestTargetsThatAreLinks(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	o := h.build("FROM busybox\nRUN ln -s "+c.dir+" /m; rm -rf /etc/group; ln -s "+c.dir+"/f /etc/group\nCOPY etc/ /etc/\nRUN --mount=type=tmpfs,target=/m touch /m/x; cat /etc/hosts > /seen\nCOPY --chown=web <<E /m/n\n1\nE\n", map[string]string{"etc/hosts -> ../run/resolve/hosts": "", "etc/x": ""})
	c.check()
	got := h.tree(o, "")
	if got["m"] != "-> "+c.dir || got["etc/hosts"] != "-> ../run/resolve/hosts" || got["run"] != "" {
		t.Errorf("links of the image: %q %q %q", got["m"], got["etc/hosts"], got["run"])
	}
	if !strings.Contains(got["seen"], "localhost") {
		t.Errorf("the step saw %q", got["seen"])
	}
	if got[strings.TrimPrefix(c.dir, "/")+"/n"] != "644 500:501 1\n" {
		t.Errorf("the copy is not where the link leads inside the image")
	}
}

// TestCacheIdsAreNoPaths: CVE-2024-9675.
func TestCacheIdsAreNoPaths(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	for _, id := range []string{"../../../../../.." + c.dir, c.dir, "..", ".", "a/../../b"} {
		h.build("FROM busybox\nRUN --mount=type=cache,id="+id+",target=/k rm -rf /k/*; echo x > /k/f\n", nil)
		c.check()
	}
	entries, _ := os.ReadDir(filepath.Join(h.dir, "build/mounts"))
	for _, e := range entries {
		if len(e.Name()) != 34 {
			t.Errorf("directory %q", e.Name())
		}
	}
}

// TestUserDatabasesThatAreLinks: CVE-2024-9676.
func TestUserDatabasesThatAreLinks(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	writeFile(t, filepath.Join(c.dir, "f"), "stolen:x:1:1::/:/bin/sh\n")
	c.was = c.look()
	o := h.try(Request{Text: []byte("FROM busybox\nRUN rm /etc/passwd; ln -s " + c.dir + "/f /etc/passwd\nCOPY --chown=stolen <<E /x\n1\nE\n")})
	if o.err == nil {
		t.Error("a user of the host is found")
	}
	o = h.try(Request{Text: []byte("FROM busybox\nRUN rm /etc/passwd; mkfifo /etc/passwd\nCOPY --chown=stolen <<E /x\n1\nE\n")})
	if o.err == nil {
		t.Error("a fifo is a user database")
	}
	c.check()
}

// TestDockerfileThroughALink: the Dockerfile is read inside the context.
func TestDockerfileThroughALink(t *testing.T) {
	h := newHouse(t)
	c := newCanary(t)
	writeFile(t, filepath.Join(c.dir, "f"), "FROM busybox\n")
	dir := h.context(map[string]string{"Dockerfile -> " + c.dir + "/f": ""})
	if o := h.try(Request{ContextDir: dir}); !fault.Is(o.err, fault.Invalid) {
		t.Errorf("error %v", o.err)
	}
	dir = h.context(map[string]string{"real": "FROM busybox\n", "Dockerfile -> /real": ""})
	if o := h.try(Request{ContextDir: dir}); o.err != nil {
		t.Errorf("a link inside the context: %v", o.err)
	}
}

// TestSecretsAreNowhere: neither layers, nor records, nor history have them.
func TestSecretsAreNowhere(t *testing.T) {
	h := newHouse(t)
	const secret = "xyzzy-plugh-0123456789"
	o := h.build("FROM busybox\nRUN --mount=type=secret,id=a,target=/s,mode=0444 --mount=type=secret,id=a,env=TOKEN test -n \"$TOKEN\" && test \"$(cat /s)\" = \"$TOKEN\" && sha256sum /s > /sum\n",
		nil, func(r *Request) { r.Secrets = secrets{"a": secret} })
	if !strings.Contains(h.tree(o, "")["sum"], "  /s\n") {
		t.Error("the step did not see the secret")
	}
	if err := h.b.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(h.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("the secret is in %s", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	o = h.try(Request{Text: []byte("FROM busybox\nRUN --mount=type=secret,id=none,required true\n")})
	if o.err == nil || !strings.Contains(o.err.Error(), "--secret id=none") {
		t.Errorf("a missing secret: %v", o.err)
	}
}

// TestForgedHistoryIsNoHit: CVE-2024-24557: an image whose history says that a
// step was run on another image does not stand in for that step.
func TestForgedHistoryIsNoHit(t *testing.T) {
	h := newHouse(t)
	honest := h.build("FROM busybox\nRUN echo honest > /f\n", nil)
	if _, err := h.b.Prune(context.Background(), solve.PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	again := h.build("FROM busybox\nRUN echo honest > /f\n", nil, func(r *Request) { r.Args = nil })
	if again.ran() == "" {
		t.Error("an image's history was taken for the step")
	}
	if !slices.Equal(honest.Layers[:1], again.Layers[:1]) {
		t.Error("another base")
	}
}
