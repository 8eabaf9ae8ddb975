package why

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/container/rootview"
	"berth/internal/runtime/smallfile"
	"berth/internal/spelling"
)

const (
	maxCandidates = 5
	maxDirEntries = 20_000 // of one directory that is searched for a program
)

// candidates lists programs in a container's root that may have been meant by a
// name that does not exist: of the same name elsewhere, then of similar names.
func (k *Evidence) candidates(name string) []string {
	if len(k.Root) == 0 {
		return nil
	}
	view, err := rootview.Open(k.Root)
	if err != nil {
		return nil
	}
	defer view.Close()
	return similarPrograms(name, searchDirs(k.Record, name), func(dir string) []string {
		d, err := view.OpenDir(dir)
		if err != nil {
			return nil
		}
		defer d.Close()
		names, _ := d.Readdirnames(maxDirEntries)
		return names
	})
}

// searchDirs are the directories in which a program may be: that of its path, the
// search path, the working directory, and where programs usually are.
func searchDirs(rec *container.Record, name string) []string {
	var dirs []string
	add := func(dir string) {
		if dir = path.Join("/", dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if strings.Contains(name, "/") {
		dir := path.Dir(name)
		if !path.IsAbs(dir) {
			dir = path.Join(rec.Config.WorkingDir, dir)
		}
		add(dir)
	}
	for _, v := range rec.Config.Env {
		if list, ok := strings.CutPrefix(v, "PATH="); ok {
			for dir := range strings.SplitSeq(list, ":") {
				add(dir)
			}
		}
	}
	for _, dir := range []string{rec.Config.WorkingDir, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/app", "/app/bin", "/opt/bin", "/"} {
		add(dir)
	}
	return dirs
}

// similarPrograms ranks what directories hold by likeness to a name.
func similarPrograms(name string, dirs []string, list func(dir string) []string) []string {
	base := path.Base(name)
	type hit struct {
		path string
		far  int
	}
	var hits []hit
	for _, dir := range dirs {
		for _, entry := range list(dir) {
			if far, ok := likeness(base, entry); ok && path.Join(dir, entry) != name {
				hits = append(hits, hit{path.Join(dir, entry), far})
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return a.far - b.far })
	var out []string
	seen := map[string]bool{}
	for _, h := range hits {
		// The same program is in /bin and in /usr/bin of most images.
		if key := path.Base(h.path); !seen[key] && len(out) < maxCandidates {
			seen[key] = true
			out = append(out, h.path)
		}
	}
	return out
}

// likeness tells how far a program's name is from the one that was wanted.
func likeness(want, have string) (far int, ok bool) {
	if have == want {
		return 0, true
	}
	stem := func(s string) string {
		for _, end := range []string{".sh", ".py", ".js", ".exe"} {
			s = strings.TrimSuffix(s, end)
		}
		return strings.ToLower(s)
	}
	a, b := stem(want), stem(have)
	switch {
	case a == b:
		return 1, true
	case len(a) >= 3 && strings.HasPrefix(b, a) && strings.Trim(b[len(a):], "0123456789.-") == "":
		return 2, true // python, and python3.12 is there
	case len(a) < 3 || len(b) > 64 || len(a) > 64:
		return 0, false
	}
	most := 1
	if len(a) > 5 {
		most = 2
	}
	d := spelling.Distance(a, b)
	return 2 + d, d <= most
}

// listenerOn names the program of this machine that has a port such as
// "0.0.0.0:80/tcp"; "" when it cannot be found.
func listenerOn(ctx context.Context, port string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	address, proto, _ := strings.Cut(port, "/")
	number, err := strconv.ParseUint(address[strings.LastIndexByte(address, ':')+1:], 10, 16)
	if err != nil {
		return ""
	}
	if proto == "" {
		proto = "tcp"
	}
	inodes := map[string]bool{}
	for _, file := range []string{proto, proto + "6"} {
		text, _ := smallfile.Read("/proc/net/"+file, 16<<20)
		for _, inode := range listening(string(text), uint16(number), proto == "tcp") {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range links {
		if ctx.Err() != nil {
			break
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range entries {
			if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && inodes[target] {
				pid := filepath.Base(filepath.Dir(dir))
				name, _ := smallfile.Read("/proc/"+pid+"/comm", 4096)
				return strings.TrimSpace(string(name)) + " (pid " + pid + ")"
			}
		}
	}
	return ""
}

// listening returns the inodes of sockets at a port, from the text of /proc/net/tcp
// and its like.
func listening(text string, port uint16, onlyListen bool) (inodes []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		const listen = "0A"
		if ok && err == nil && uint16(n) == port && (!onlyListen || f[3] == listen) {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
