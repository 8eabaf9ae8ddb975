package volume

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/mount"
)

func TestParseBind(t *testing.T) {
	tests := []struct {
		in   string
		want Mount
		err  string
	}{
		{"/host:/c", Mount{Type: "bind", Source: "/host", Destination: "/c", CreateSource: true}, ""},
		{"/host/../h2:/c/", Mount{Type: "bind", Source: "/h2", Destination: "/c", CreateSource: true}, ""},
		{"/host:/c:ro", Mount{Type: "bind", Source: "/host", Destination: "/c", CreateSource: true, ReadOnly: true, Mode: "ro"}, ""},
		{"/host:/c:ro,rshared", Mount{Type: "bind", Source: "/host", Destination: "/c", CreateSource: true, ReadOnly: true, Mode: "ro,rshared", Propagation: "rshared"}, ""},
		{"data:/c", Mount{Type: "volume", Name: "data", Destination: "/c", Driver: "local"}, ""},
		{"data:/c:nocopy", Mount{Type: "volume", Name: "data", Destination: "/c", Driver: "local", NoCopy: true, Mode: "nocopy"}, ""},
		{"/c", Mount{Type: "volume", Anonymous: true, Destination: "/c", Driver: "local"}, ""},
		{"", Mount{}, "must not be empty"},
		{":/c", Mount{}, "invalid volume specification"},
		{"/a:/b:/c:ro", Mount{}, "invalid volume specification"},
		{"/a:b", Mount{}, "mount path must be absolute"},
		{"/a:/", Mount{}, "destination can't be '/'"},
		{"/a:/x/..", Mount{}, "destination can't be '/'"},
		{"./a:/b", Mount{}, "invalid characters for a local volume name"},
		{"a/b:/c", Mount{}, "If you intended to pass a host directory, use absolute path"},
		{"/a:/b:ro,rw", Mount{}, "invalid mode: ro,rw"},
		{"/a:/b:wat", Mount{}, "invalid mode: wat"},
		{"/a:/b:ro,rslave,z", Mount{Type: "bind", Source: "/a", Destination: "/b", CreateSource: true, ReadOnly: true, Mode: "ro,rslave,z", Propagation: "rslave"}, ""},
		{"/a:/b:U", Mount{}, "podman's change of owner"},
		{"/a:/b:rslave,rshared", Mount{}, "invalid mode: rslave,rshared"},
		{"/a:rw", Mount{}, "invalid volume specification: '/a:rw'"},
		{"/a:/b:nocopy", Mount{}, "invalid mode"},
		{"v1:/b:rshared", Mount{}, "invalid mode"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseBind(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !fault.Is(err, fault.Invalid) {
					t.Fatalf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Labels != nil || got.Options != nil {
				t.Errorf("labels or options appeared: %+v", got)
			}
			got.Labels, got.Options = nil, nil
			if !same(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func same(a, b Mount) bool {
	return a.Type == b.Type && a.Name == b.Name && a.Anonymous == b.Anonymous && a.Source == b.Source &&
		a.Destination == b.Destination && a.Driver == b.Driver && a.Mode == b.Mode && a.ReadOnly == b.ReadOnly &&
		a.Propagation == b.Propagation && a.CreateSource == b.CreateSource && a.NoCopy == b.NoCopy &&
		a.Subpath == b.Subpath && a.NonRecursive == b.NonRecursive && a.ReadOnlyShallow == b.ReadOnlyShallow && slices.Equal(a.Options, b.Options)
}

func TestParseMount(t *testing.T) {
	tests := []struct {
		name string
		in   mount.Mount
		want Mount
		err  string
	}{
		{"bind", mount.Mount{Type: "bind", Source: "/h", Target: "/c", ReadOnly: true}, Mount{Type: "bind", Source: "/h", Destination: "/c", ReadOnly: true}, ""},
		{"bind options", mount.Mount{Type: "bind", Source: "/h", Target: "/c", BindOptions: &mount.BindOptions{Propagation: "rslave", NonRecursive: true, CreateMountpoint: true}},
			Mount{Type: "bind", Source: "/h", Destination: "/c", Propagation: "rslave", NonRecursive: true, CreateSource: true}, ""},
		{"volume", mount.Mount{Type: "volume", Source: "data", Target: "/c", VolumeOptions: &mount.VolumeOptions{NoCopy: true}},
			Mount{Type: "volume", Name: "data", Destination: "/c", Driver: "local", NoCopy: true}, ""},
		{"anonymous volume", mount.Mount{Type: "volume", Target: "/c"}, Mount{Type: "volume", Anonymous: true, Destination: "/c", Driver: "local"}, ""},
		{"tmpfs", mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 4096, Mode: 0o700}},
			Mount{Type: "tmpfs", Destination: "/t", Options: []string{"noexec", "nosuid", "nodev", "size=4096", "mode=700"}}, ""},
		{"tmpfs exec", mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"exec"}, {"uid", "5"}}}},
			Mount{Type: "tmpfs", Destination: "/t", Options: []string{"nosuid", "nodev", "exec", "uid=5"}}, ""},
		{"no target", mount.Mount{Type: "bind", Source: "/h"}, Mount{}, "field Target must not be empty"},
		{"no source", mount.Mount{Type: "bind", Target: "/c"}, Mount{}, "field Source must not be empty"},
		{"relative source", mount.Mount{Type: "bind", Source: "h", Target: "/c"}, Mount{}, "must be absolute"},
		{"tmpfs with source", mount.Mount{Type: "tmpfs", Source: "x", Target: "/c"}, Mount{}, "field Source must not be specified"},
		{"foreign options", mount.Mount{Type: "bind", Source: "/h", Target: "/c", VolumeOptions: &mount.VolumeOptions{}}, Mount{}, "VolumeOptions must not be specified"},
		{"subpath", mount.Mount{Type: "volume", Source: "data", Target: "/c", VolumeOptions: &mount.VolumeOptions{Subpath: "x/y"}},
			Mount{Type: "volume", Name: "data", Destination: "/c", Driver: "local", Subpath: "x/y"}, ""},
		{"subpath upwards", mount.Mount{Type: "volume", Source: "data", Target: "/c", VolumeOptions: &mount.VolumeOptions{Subpath: "x/../../y"}}, Mount{}, "subpath must be a relative path within the volume"},
		{"absolute subpath", mount.Mount{Type: "volume", Source: "data", Target: "/c", VolumeOptions: &mount.VolumeOptions{Subpath: "/x"}}, Mount{}, "subpath must be a relative path within the volume"},
		{"subpath of nobody's", mount.Mount{Type: "volume", Target: "/c", VolumeOptions: &mount.VolumeOptions{Subpath: "x"}}, Mount{}, "must not set Subpath when using anonymous volumes"},
		{"anonymous and read-only", mount.Mount{Type: "volume", Target: "/c", ReadOnly: true}, Mount{}, "must not set ReadOnly mode when using anonymous volumes"},
		{"driver", mount.Mount{Type: "volume", Source: "data", Target: "/c", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "nfs"}}}, Mount{}, `volume driver "nfs"`},
		{"image", mount.Mount{Type: "image", Source: "x:1", Target: "/c", ImageOptions: &mount.ImageOptions{Subpath: "etc"}},
			Mount{Type: "image", Name: "x:1", Destination: "/c", ReadOnly: true, Subpath: "etc"}, ""},
		{"no image", mount.Mount{Type: "image", Target: "/c"}, Mount{}, "field Source must not be empty"},
		{"image with volume options", mount.Mount{Type: "image", Source: "x", Target: "/c", VolumeOptions: &mount.VolumeOptions{}}, Mount{}, "VolumeOptions must not be specified"},
		{"part outside of an image", mount.Mount{Type: "image", Source: "x", Target: "/c", ImageOptions: &mount.ImageOptions{Subpath: ".."}}, Mount{}, "subpath must be a relative path"},
		{"named pipe", mount.Mount{Type: "npipe", Source: "x", Target: "/c"}, Mount{}, `type "npipe": named pipes exist on Windows only`},
		{"cluster volume", mount.Mount{Type: "cluster", Source: "x", Target: "/c"}, Mount{}, `type "cluster": cluster volumes need a swarm`},
		{"any consistency", mount.Mount{Type: "bind", Source: "/h", Target: "/c", Consistency: "eventual"}, Mount{Type: "bind", Source: "/h", Destination: "/c"}, ""},
		{"unknown", mount.Mount{Type: "wat", Source: "x", Target: "/c"}, Mount{}, "mount type unknown"},
		{"option injection", mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"uid", "5,suid"}}}}, Mount{}, "invalid option"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseMount(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil || !same(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseFrom(t *testing.T) {
	for spec, want := range map[string]string{
		"c": "c false", "c:ro": "c true", "c:rw": "c false", "c:ro,z": "c true", "c:": "c false",
		"": "cannot be an empty string", "c:rshared": "invalid mode: rshared", "c:nocopy": "invalid mode: nocopy", "c:ro,rw": "invalid mode", "c:wat": "invalid mode",
	} {
		name, readOnly, err := ParseFrom(spec)
		got := fmt.Sprintf("%s %t", name, readOnly)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", spec, got, want)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	m, err := ParseTmpfs("/run/", "rw,exec,size=64m")
	if err != nil || m.Destination != "/run" || !slices.Equal(m.Options, []string{"nosuid", "nodev", "rw", "exec", "size=64m"}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"wat", "size", "size=", "exec=1", "bind", ","} {
		if m, err := ParseTmpfs("/run", bad); err == nil {
			t.Errorf("%q became %+v", bad, m)
		}
	}
	if _, err := ParseTmpfs("run", ""); err == nil {
		t.Error("a relative path was accepted")
	}
}

func FuzzParseBind(f *testing.F) {
	f.Add("/host:/c:ro,rshared")
	f.Add("data:/c")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseBind(s)
		if err != nil {
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Errorf("%q: %v is nobody's fault", s, err)
			}
			return
		}
		if !strings.HasPrefix(m.Destination, "/") || m.Destination == "/" || strings.Contains(m.Destination, "/../") {
			t.Errorf("%q: destination %q", s, m.Destination)
		}
		if (m.Type == mount.TypeBind) != strings.HasPrefix(m.Source, "/") {
			t.Errorf("%q: %+v", s, m)
		}
		if m.Name != "" && CheckName(m.Name) != nil {
			t.Errorf("%q: name %q", s, m.Name)
		}
	})
}
