package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mountedDir is a directory of the host that is a mount of its own, with the
// propagation asked for, and has another mount below it.
func (d dockerHost) mountedDir(name, propagation string) string {
	d.t.Helper()
	dir := d.path(name)
	d.mustWithin("sh", "-ec", `mkdir -p "$1"; mount -t tmpfs tmpfs "$1"; mount --make-$2 "$1"
mkdir "$1/below" "$1/later"; mount -t tmpfs tmpfs "$1/below"; echo host >"$1/file"; echo host >"$1/below/file"`, "sh", dir, propagation)
	return dir
}

func TestBindsReachAsDeepAsAsked(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	dir := d.mountedDir("deep", "private")
	try := `for f in /b/new /b/below/new; do if [ ! -e /b/below/file ] && [ $f = /b/below/new ]; then echo -n absent; elif touch $f 2>/dev/null; then echo -n "rw "; else echo -n "ro "; fi; done`
	for options, want := range map[string]string{
		"":                            "rw rw ",
		",readonly":                   "ro ro ",
		",ro,bind-recursive=enabled":  "ro ro ",
		",bind-recursive=disabled":    "rw absent",
		",ro,bind-recursive=disabled": "ro absent",
		",ro,bind-recursive=writable": "ro rw ",
		",ro,bind-recursive=readonly,bind-propagation=rprivate":        "ro ro ",
		",readonly=false,consistency=delegated,bind-propagation=slave": "not a",
	} {
		o := d.docker("run", "--rm", "--mount", "type=bind,src="+dir+",dst=/b"+options, busyboxImage, "sh", "-c", try)
		if got := o.stdout + o.stderr; strings.HasPrefix(want, "not a") {
			if o.code == 0 || !strings.Contains(got, "does not propagate") {
				t.Errorf("%s: %q", options, got)
			}
		} else if got != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
	// -v makes a missing source, --mount refuses it unless it is told to make it.
	d.does("run", "--rm", "-v", dir+"/made/deep:/b", busyboxImage, "touch", "/b/x")
	d.fails("bind source path does not exist: "+dir+"/missing", "run", "--rm", "--mount", "type=bind,src="+dir+"/missing,dst=/b", busyboxImage, "true")
	for binds, why := range map[string]string{
		dir + ":/b:ro,rw": "invalid mode", dir + ":/b:U": "podman's", dir + ":/b:wat": "invalid mode", dir + ":/": "destination can't be '/'",
		"a/b:/b": "includes invalid characters", "v1:/b:rslave": "invalid mode", dir + ":/b:nocopy": "invalid mode",
	} {
		d.fails(why, "create", "-v", binds, busyboxImage, "true")
	}
	d.fails("Duplicate mount point: /b", "create", "-v", dir+":/b", "-v", "data:/b/", busyboxImage, "true")
	d.fails("Duplicate mount point: /b", "create", "-v", dir+":/b", "--tmpfs", "/b", busyboxImage, "true")
	d.fails("cannot mount volume over existing file", "create", "-v", "/www/index.html", busyboxImage, "true")
	d.fails("named pipes exist on Windows only", "create", "--mount", "type=npipe,src=x,dst=/b", busyboxImage, "true")
	d.fails("need a swarm", "create", "--mount", "type=cluster,src=x,dst=/b", busyboxImage, "true")
	d.does("run", "--rm", "-v", dir+":/b:ro,z,cached", busyboxImage, "cat", "/b/below/file")
}

func TestPropagation(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	dir := d.mountedDir("shared", "rshared")
	for _, p := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"} {
		d.does("run", "-d", "--privileged", "--name", p, "-v", dir+":/b:"+p, busyboxImage, "sleep", "1000")
		d.equal(d.does("inspect", "-f", "{{range .Mounts}}{{.Propagation}}{{end}}", p), p)
	}
	d.mustWithin("sh", "-ec", `mount -t tmpfs tmpfs "$1/later"; echo new >"$1/later/file"`, "sh", dir)
	for _, p := range []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"} {
		o := d.docker("exec", p, "cat", "/b/later/file")
		if seen := o.stdout == "new\n"; seen != !strings.Contains(p, "private") {
			t.Errorf("%s: what the host mounts later is seen: %t", p, seen)
		}
		d.does("exec", p, "sh", "-ec", "mkdir /b/of-"+p+"; mount -t tmpfs tmpfs /b/of-"+p+"; touch /b/of-"+p+"/file")
		_, err := d.within("cat", filepath.Join(dir, "of-"+p, "file")).Output()
		if seen := err == nil; seen != strings.Contains(p, "shared") {
			t.Errorf("%s: what the container mounts is seen on the host: %t", p, seen)
		}
	}
	d.does("rm", "-f", "private", "rprivate", "slave", "rslave", "shared", "rshared")
	// What shows the data directory follows the host by itself, where it can.
	d.does("create", "--name", "all", "-v", d.dir+":/host", busyboxImage, "true")
	d.equal(d.does("inspect", "-f", "{{range .Mounts}}{{.Propagation}}{{end}}", "all"), "rslave")
	d.does("start", "all")
	d.fails("must use either propagation mode", "create", "-v", d.dir+":/host:private", busyboxImage, "true")
}

func TestMemoryMounts(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	d.equal(d.does("run", "--rm", "--mount", "type=tmpfs,dst=/m,tmpfs-size=2m,tmpfs-mode=0710", busyboxImage, "sh", "-c", "stat -c %a /m; df -k /m | tail -1 | awk '{print $2}'"), "710\n2048")
	line := d.does("run", "--rm", "--tmpfs", "/m:rw,exec,size=1m,uid=5,mode=1770", busyboxImage, "sh", "-c", "grep ' /m ' /proc/mounts; stat -c '%u %a' /m")
	if !strings.Contains(line, "nosuid,nodev") || strings.Contains(line, "noexec") || !strings.HasSuffix(line, "5 1770") {
		t.Errorf("%s", line)
	}
	d.fails("Read-only file system", "run", "--rm", "--mount", "type=tmpfs,dst=/m,readonly", busyboxImage, "touch", "/m/x")
	d.fails("invalid tmpfs option", "run", "--rm", "--tmpfs", "/m:bind", busyboxImage, "true")
	d.equal(d.does("run", "--rm", "--read-only", "--tmpfs", "/m", "-v", "/v", busyboxImage, "sh", "-c", "touch /m/x /v/x; touch /x 2>/dev/null || echo ro"), "ro")
}

// A volume on a file with a file system in it, and volumes on servers that nobody
// reaches.
func TestVolumesElsewhere(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	if out, err := d.within("sh", "-ec", `truncate -s 8M "$1"; mkfs.ext4 -q -F "$1"; test -e /dev/loop-control`, "sh", d.path("disk.img")).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4 and loop devices: %s", out)
	}
	d.does("volume", "create", "-o", "type=ext4", "-o", "o=loop", "-o", "device="+d.path("disk.img"), "disk")
	d.does("run", "-d", "--name", "one", "-v", "disk:/d", busyboxImage, "sh", "-c", "echo kept >/d/file; sleep 1000")
	d.eventually("the file is written", func() bool { return d.docker("exec", "one", "cat", "/d/file").stdout == "kept\n" })
	d.killEngine()
	d.startEngine()
	// One user goes while another is there, and the last one takes the mount along.
	d.equal(d.does("run", "--rm", "-v", "disk:/d", busyboxImage, "cat", "/d/file"), "kept")
	d.equal(d.does("exec", "one", "cat", "/d/file"), "kept")
	d.does("rm", "-f", "one")
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", d.holder.Process.Pid)); err != nil || strings.Contains(string(text), "ext4 "+d.path("data")) || strings.Contains(string(text), d.path("data", "volumes")) {
		t.Errorf("still mounted: %v", err)
	}
	d.equal(d.does("run", "--rm", "--mount", "type=volume,src=disk,dst=/p,volume-subpath=file", busyboxImage, "cat", "/p"), "kept")
	d.equal(d.does("system", "df", "--format", "{{if eq .Type \"Local Volumes\"}}{{.TotalCount}}{{end}}"), "0")
	d.equal(d.does("volume", "prune", "-af"), "Total reclaimed space: 0B")
	d.does("volume", "create", "-o", "type=nfs", "-o", "device=:/export", "-o", "o=addr=no.such.host.invalid,vers=4", "far")
	d.fails("error resolving passed in network volume address", "run", "--rm", "-v", "far:/f:nocopy", busyboxImage, "true")
	d.does("volume", "create", "-o", "type=cifs", "-o", "device=//127.0.0.1/share", "-o", "o=user=u,password=hush", "share")
	o := d.docker("run", "--rm", "-v", "share:/f", busyboxImage, "true")
	if !strings.Contains(o.stderr, "error while mounting volume '"+d.path("data", "volumes", "share", "_data")+"': failed to mount local volume: mount //127.0.0.1/share:") || strings.Contains(o.stderr, "hush") {
		t.Errorf("%q", o.stderr)
	}
	d.fails("other options", "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "share")
	for _, name := range []string{"../up", "..", "a/b", ".hidden", "x", "a b"} {
		if o := d.docker("volume", "create", "--", name); o.code == 0 {
			t.Errorf("a volume may be called %q", name)
		}
		if o := d.docker("volume", "rm", "--", name); o.code == 0 {
			t.Errorf("volume %q was removed", name)
		}
	}
	d.does("create", "--name", "holder", "-v", "share:/f:nocopy", busyboxImage, "true")
	d.fails("mounted by holder", "volume", "rm", "share")
	d.fails("mounted by holder", "volume", "rm", "-f", "share")
	d.does("volume", "rm", "-f", "never")
}
