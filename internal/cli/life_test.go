package cli

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/client"
)

// files makes the engine know paths of the container web: their modes, and where
// links lead.
func (e *fakeEngine) files(paths map[string]client.PathStat, archive []byte) {
	stat := func(w http.ResponseWriter, r *http.Request) bool {
		path := r.URL.Query().Get("path")
		s, ok := paths[path]
		if !ok {
			refuse(w, 404, "Could not find the file "+path+" in container web")
			return false
		}
		raw, _ := json.Marshal(s)
		w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(raw))
		return true
	}
	e.more.HandleFunc("HEAD /containers/web/archive", func(w http.ResponseWriter, r *http.Request) { stat(w, r) })
	e.more.HandleFunc("GET /containers/web/archive", func(w http.ResponseWriter, r *http.Request) {
		if stat(w, r) {
			_, _ = w.Write(archive)
		}
	})
	e.more.HandleFunc("PUT /containers/web/archive", func(w http.ResponseWriter, r *http.Request) {})
}

func dirTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{{Name: "www/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "www/index", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = w.Write([]byte("hi"))
		}
	}
	_ = w.Close()
	return b.Bytes()
}

// entries lists an archive that was sent to the engine.
func entries(t *testing.T, text []byte) string {
	t.Helper()
	var names []string
	in := tar.NewReader(bytes.NewReader(text))
	for {
		h, err := in.Next()
		if err == io.EOF {
			return strings.Join(names, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestCopyOutOfAContainer(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "create", "--name", "web", "img")
	dir := client.PathStat{Name: "www", Mode: fs.ModeDir | 0o755}
	e.files(map[string]client.PathStat{"/srv/www": dir, "/srv/www/.": dir, "/link": {Name: "link", Mode: fs.ModeSymlink, LinkTarget: "srv/www"},
		"/loop": {Name: "loop", Mode: fs.ModeSymlink, LinkTarget: "/loop"}}, dirTar(t))
	home := t.TempDir()
	at := func(name string) string { return filepath.Join(home, name) }
	if err := os.WriteFile(at("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := "Successfully copied 2B to "
	e.table(t, []line{
		{"new directory", []string{"cp", "web:/srv/www", at("a")}, 0, "", copied + at("a")},
		{"into a directory", []string{"cp", "web:/srv/www", at("a")}, 0, "", copied},
		{"contents", []string{"cp", "-q", "web:/srv/www/.", at("a")}, 0, "", ""},
		{"through a link", []string{"cp", "-L", "web:/link", at("")}, 0, "", copied},
		{"a link that never ends", []string{"cp", "-L", "web:/loop", at("x")}, 1, "", "too many symbolic links"},
		{"as an archive", []string{"cp", "web:/srv/www", "-"}, 0, string(dirTar(t)), ""},
		{"onto a file", []string{"cp", "web:/srv/www", at("file")}, 1, "", "is a file"},
		{"into nowhere", []string{"cp", "web:/srv/www", at("none/b")}, 1, "", "mkdir -p " + at("none")},
		{"nothing there", []string{"cp", "web:/none", at("b")}, 1, "", "Could not find the file /none in container web"},
		{"no container", []string{"cp", "wbe:/srv", at("b")}, 1, "", "page not found\n  did you mean web?"},
		{"between containers", []string{"cp", "web:/a", "db:/b"}, 1, "", "berth cp web:/a - | berth cp - db:/b"},
		{"nowhere near a container", []string{"cp", "./web:a", "/b:c"}, 1, "", "is in a container"},
	})
	for _, name := range []string{"a/index", "a/www/index", "link/index"} {
		if text, err := os.ReadFile(at(name)); string(text) != "hi" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestCopyIntoAContainer(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "create", "--name", "web", "img")
	e.files(map[string]client.PathStat{"/srv": {Name: "srv", Mode: fs.ModeDir | 0o755}, "/etc/passwd": {Name: "passwd", Mode: 0o644},
		"/": {Name: "/", Mode: fs.ModeDir | 0o755}, "/link": {Name: "link", Mode: fs.ModeSymlink, LinkTarget: "srv"}}, nil)
	home := t.TempDir()
	site := filepath.Join(home, "site")
	if err := os.MkdirAll(site, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(site, "index")
	if err := os.WriteFile(file, []byte("hi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("index", filepath.Join(site, "z")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args            []string
		path, contained string
	}{
		{[]string{file, "web:/srv"}, "/srv", "index"}, {[]string{file, "web:/srv/new"}, "/srv", "new"}, {[]string{file, "web:/etc/passwd"}, "/etc", "passwd"},
		{[]string{site, "web:/srv"}, "/srv", "site/ site/index site/z"}, {[]string{site + "/.", "web:/srv"}, "/srv", "./ index z"},
		{[]string{site, "web:/srv/new"}, "/srv", "new/ new/index new/z"}, {[]string{file, "web:/link"}, "/srv", "index"},
		{[]string{file, "web:/"}, "/", "index"}, {[]string{file, "web:new"}, "/", "new"}, {[]string{"-L", filepath.Join(site, "z"), "web:/srv"}, "/srv", "z"},
		{[]string{"-a", file, "web:/srv/"}, "/srv/", "index"},
	} {
		before := len(e.recorded("PUT", "/archive"))
		if o := e.berth("", append([]string{"cp"}, c.args...)...); o.code != 0 {
			t.Errorf("%q: %+v", c.args, o)
			continue
		}
		put := e.recorded("PUT", "/archive")[before]
		if got := entries(t, put.body); put.query.Get("path") != c.path || got != c.contained || put.query.Get("noOverwriteDirNonDir") != "true" {
			t.Errorf("%q: %v holds %q", c.args, put.query, got)
		}
		if want := c.args[0] == "-a"; put.query.Has("copyUIDGID") != want {
			t.Errorf("%q: %v", c.args, put.query)
		}
	}
	e.table(t, []line{
		{"directory onto a file", []string{"cp", site, "web:/etc/passwd"}, 1, "", "is a file"},
		{"file into a missing directory", []string{"cp", file, "web:/none/"}, 1, "", "does not exist"},
		{"nothing to copy", []string{"cp", filepath.Join(home, "none"), "web:/srv"}, 1, "", "no such file"},
		{"archive onto a file", []string{"cp", "-", "web:/etc/passwd"}, 1, "", "not a directory"},
		{"no container", []string{"cp", file, "nope:/x/"}, 1, "", "No such container: nope"},
	})
	if o := e.berth("archive", "cp", "-", "web:/srv"); o.code != 0 {
		t.Errorf("%+v", o)
	}
	puts := e.recorded("PUT", "/archive")
	if string(puts[len(puts)-1].body) != "archive" {
		t.Errorf("sent %q", puts[len(puts)-1].body)
	}
}

const statsSample = `{"id":"0123456789abcdef","name":"/web","read":"2026-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":4},
"precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},"memory_stats":{"usage":3145728,"limit":10485760,"stats":{"inactive_file":1048576}},
"networks":{"eth0":{"rx_bytes":1000,"tx_bytes":2000},"eth1":{"rx_bytes":5}},"pids_stats":{"current":3},
"blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":7},{"op":"write","value":8},{"op":"Total","value":15}]}}`

func TestLookingAtContainers(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "create", "--name", "web", "img")
	e.answers("GET /containers/web/stats", statsSample)
	e.answers("GET /containers/web/top", `{"Titles":["PID","CMD"],"Processes":[["1","sh"],["20","sleep 1"]]}`)
	e.answers("GET /containers/web/changes", `[{"Path":"/a","Kind":0},{"Path":"/a/b","Kind":1},{"Path":"/c","Kind":2}]`)
	e.answers("GET /containers/web/export", "files")
	e.answers("POST /containers/web/rename", "")
	e.answers("POST /containers/web/pause", "")
	e.answers("POST /containers/web/update", `{"Warnings":["no swap"]}`)
	e.answers("GET /events", `{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"name":"web","exitCode":"1"}},"time":5,"timeNano":5000000007}
{"Type":"network","Action":"create","Actor":{"ID":"def"},"time":6}`)
	e.answers("GET /system/df", `{"ImageUsage":{"ActiveCount":1,"TotalCount":2,"Reclaimable":500,"TotalSize":1000},"ContainerUsage":{"TotalCount":1},
"VolumeUsage":{"TotalCount":1,"Items":[{"Name":"v","UsageData":{"Size":5,"RefCount":0}}]},"BuildCacheUsage":{}}`)
	e.table(t, []line{
		{"stats", []string{"stats", "--no-stream", "web"}, 0, "CONTAINER ID   NAME   CPU %    MEM USAGE / LIMIT   MEM %    NET I/O     BLOCK I/O   PIDS\n" +
			"0123456789ab   web    80.00%   2MiB / 10MiB        20.00%   1kB / 2kB   7B / 8B     3\n", ""},
		{"stats in a template", []string{"stats", "--no-stream", "--no-trunc", "--format", "{{.Container}} {{.ID}} {{.PIDs}}", "web"}, 0, "web 0123456789abcdef 3\n", ""},
		{"stats of nothing", []string{"stats", "--no-stream", "--format", "{{.ID}}", "nope"}, 1, "", "page not found"},
		{"top", []string{"top", "web", "-o", "pid,cmd"}, 0, "PID   CMD\n1     sh\n20    sleep 1\n", ""},
		{"diff", []string{"container", "diff", "web"}, 0, "C /a\nA /a/b\nD /c\n", ""},
		{"export", []string{"export", "web"}, 0, "files", ""},
		{"rename", []string{"rename", "web", "wob"}, 0, "", ""},
		{"pause", []string{"pause", "web"}, 0, "web\n", ""},
		{"update", []string{"update", "-m", "64m", "--cpus", "1.5", "--restart", "on-failure:3", "web"}, 0, "web\n", "no swap"},
		{"update of nothing", []string{"update", "web"}, 1, "", "nothing to change"},
		{"update in conflict", []string{"update", "--cpus", "1", "--cpu-quota", "5", "web"}, 1, "", "same limit"},
		{"events in a template", []string{"events", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}}"}, 0, "container die abc\nnetwork create def\n", ""},
		{"events in docker's words", []string{"events", "--format", "{{.Time}} {{.TimeNano}} {{.Scope}}"}, 0, "5 5000000007 \n6 0 \n", ""},
		{"disk usage", []string{"system", "df"}, 0, "TYPE            TOTAL   ACTIVE   SIZE   RECLAIMABLE\nImages          2       1        1kB    500B (50%)\n" +
			"Containers      1       0        0B     0B\nLocal Volumes   1       0        0B     0B\nBuild Cache     0       0        0B     0B\n", ""},
	})
	if q := e.recorded("GET", "/top")[0].query.Get("ps_args"); q != "-o pid,cmd" {
		t.Errorf("top asked %q", q)
	}
	if got := string(e.recorded("POST", "/update")[0].body); got != `{"Memory":67108864,"NanoCpus":1500000000,"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}` {
		t.Errorf("update sent %s", got)
	}
	o := e.berth("", "events", "--since", "5", "--until", "10", "-f", "type=container")
	if !strings.Contains(o.stdout, " container die abc (exitCode=1, name=web)\n") || !strings.HasPrefix(o.stdout, "1970-01-01T0") {
		t.Errorf("%+v", o)
	}
	if o := e.berth("", "system", "df", "-v"); !strings.Contains(o.stdout, "VOLUME NAME   LINKS   SIZE\nv             0       5B\n") {
		t.Errorf("%+v", o)
	}
}

func TestStatsAreDrawnInPlace(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	hold := make(chan struct{})
	e.more.HandleFunc("GET /containers/web/stats", func(w http.ResponseWriter, r *http.Request) {
		for i := range 2 {
			fmt.Fprint(w, strings.ReplaceAll(statsSample, `"current":3`, fmt.Sprintf(`"current":%d`, 41+i)))
			w.(http.Flusher).Flush()
		}
		<-hold
	})
	y := newTTY(t)
	ended := y.berth(e, "stats", "web")
	y.screen.await(t, "\x1b[H")
	y.screen.await(t, "42\x1b[K")
	close(hold)
	<-ended
}

func TestNetworksAndVolumes(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.answers("GET /networks", `[{"Name":"b","Id":"0123456789abcdef","Driver":"bridge","Scope":"local","EnableIPv6":true,"Labels":{"a":"1"}},{"Name":"a","Id":"ff","Driver":"null","Scope":"local"}]`)
	e.answers("POST /networks/create", `{"Id":"abc","Warning":"careful"}`)
	e.answers("GET /networks/b", `{"Name":"b","Driver":"bridge"}`)
	e.answers("POST /networks/b/connect", "")
	e.answers("POST /networks/b/disconnect", "")
	e.answers("DELETE /networks/b", "")
	e.answers("GET /volumes", `{"Volumes":[{"Name":"v","Driver":"local","Mountpoint":"/m"}],"Warnings":null}`)
	e.answers("POST /volumes/create", `{"Name":"made"}`)
	e.answers("GET /volumes/v", `{"Name":"v","Mountpoint":"/m"}`)
	e.answers("DELETE /volumes/v", "")
	e.table(t, []line{
		{"networks", []string{"network", "ls"}, 0, "NETWORK ID     NAME   DRIVER   SCOPE\nff             a      null     local\n0123456789ab   b      bridge   local\n", ""},
		{"ids", []string{"network", "list", "-q", "--no-trunc"}, 0, "ff\n0123456789abcdef\n", ""},
		{"in a template", []string{"network", "ls", "--format", `{{.Name}} {{.IPv6}} {{.Label "a"}}`}, 0, "a false \nb true 1\n", ""},
		{"create", []string{"network", "create", "--subnet", "10.5.0.0/24", "--subnet", "fd00::/64", "--gateway", "10.5.0.1", "--ip-range", "10.5.0.128/25",
			"--aux-address", "x=fd00::5", "--internal", "--ipv6", "--label", "a=b", "-o", "c=d", "n"}, 0, "abc\n", "careful"},
		{"bad subnet", []string{"network", "create", "--subnet", "10.5.0.0", "n"}, 1, "", "10.5.0.0/24"},
		{"gateway outside", []string{"network", "create", "--subnet", "10.5.0.0/24", "--gateway", "10.6.0.1", "n"}, 1, "", "in none of the subnets"},
		{"gateway alone", []string{"network", "create", "--gateway", "10.6.0.1", "n"}, 1, "", "--subnet"},
		{"overlapping", []string{"network", "create", "--subnet", "10.5.0.0/24", "--subnet", "10.5.0.0/16", "n"}, 1, "", "overlap"},
		{"inspect", []string{"network", "inspect", "-f", "{{.Driver}}", "b"}, 0, "bridge\n", ""},
		{"connect", []string{"network", "connect", "--alias", "db", "--ip", "10.5.0.9", "b", "web"}, 0, "", ""},
		{"disconnect", []string{"network", "disconnect", "-f", "b", "web"}, 0, "", ""},
		{"rm", []string{"network", "rm", "b", "none"}, 1, "b\n", "page not found"},
		{"rm, never mind", []string{"network", "rm", "-f", "none"}, 0, "none\n", ""},
		{"volumes", []string{"volume", "ls"}, 0, "DRIVER   VOLUME NAME\nlocal    v\n", ""},
		{"volume names", []string{"volume", "ls", "-q"}, 0, "v\n", ""},
		{"volume create", []string{"volume", "create", "--label", "a=b", "-o", "type=tmpfs"}, 0, "made\n", ""},
		{"volume inspect", []string{"volume", "inspect", "-f", "{{.Mountpoint}}", "v"}, 0, "/m\n", ""},
		{"inspect finds volumes", []string{"inspect", "-f", "{{.Name}}", "--type", "volume", "v"}, 0, "v\n", ""},
		{"volume rm", []string{"volume", "rm", "v"}, 0, "v\n", ""},
	})
	if got := string(e.recorded("POST", "/networks/create")[0].body); got != `{"Name":"n","Driver":"bridge","EnableIPv6":true,"IPAM":{"Driver":"default","Config":[`+
		`{"Subnet":"10.5.0.0/24","IPRange":"10.5.0.128/25","Gateway":"10.5.0.1"},{"Subnet":"fd00::/64","AuxiliaryAddresses":{"x":"fd00::5"}}]},"Internal":true,"Options":{"c":"d"},"Labels":{"a":"b"}}` {
		t.Errorf("create sent %s", got)
	}
	if got := string(e.recorded("POST", "/connect")[0].body); got != `{"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.5.0.9"},"Aliases":["db"]}}` {
		t.Errorf("connect sent %s", got)
	}
}

func TestSystemPrune(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.answers("POST /containers/prune", `{"ContainersDeleted":["c1"],"SpaceReclaimed":1000}`)
	e.answers("POST /networks/prune", `{"NetworksDeleted":["n1"]}`)
	e.answers("POST /volumes/prune", `{"VolumesDeleted":["v1"],"SpaceReclaimed":500}`)
	e.answers("POST /images/prune", `{"ImagesDeleted":null,"SpaceReclaimed":0}`)
	o := e.berth("y\n", "system", "prune", "-a", "--volumes", "--filter", "until=24h")
	if o.code != 0 || !strings.Contains(o.stdout, "Deleted Containers:\nc1\n\nDeleted Networks:\nn1\n\nDeleted Volumes:\nv1\n\nTotal reclaimed space: 1.5kB\n") {
		t.Errorf("%+v", o)
	}
	for kind, want := range map[string]string{"containers": `{"until":{"24h":true}}`, "volumes": "", "images": `{"dangling":{"false":true},"until":{"24h":true}}`} {
		if got := e.recorded("POST", "/"+kind+"/prune")[0].query.Get("filters"); got != want {
			t.Errorf("%s: asked %s", kind, got)
		}
	}
}

// TestAForeignEngineIsNotAskedToRemove: a dry run must not act where nobody knows the word.
func TestAForeignEngineIsNotAskedToRemove(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.more.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.URL.Path != "/berth/plan" && !strings.HasSuffix(r.URL.Path, "/berth/plan") {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	})
	for _, args := range [][]string{{"container", "prune"}, {"image", "prune", "-a"}, {"volume", "prune"}, {"network", "prune"}, {"system", "prune"},
		{"build", "cache", "prune"}, {"rm", "-f", "a", "b"}, {"rmi", "a", "b"}, {"volume", "rm", "a"}, {"network", "rm", "a"}} {
		for _, flag := range []string{"--dry-run", "--explain", "--dry-run --format=json"} {
			e.table(t, []line{{strings.Join(args, " "), append(slices.Clone(args), strings.Fields(flag)...), 1, "", "has no dry run"}})
		}
		e.table(t, []line{{"a format without a plan", append(slices.Clone(args), "--format", "json"), 1, "", "--format goes with --dry-run"}})
	}
}
