package manifest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"
)

func file(path, text string) Entry {
	return Entry{Path: path, Kind: File, Mode: 0o644, Mtime: 5e9 + 7, Size: int64(len(text)), Digest: sha256.Sum256([]byte(text))}
}

func sample() []Entry {
	return []Entry{
		{Path: "a", Kind: Dir, Mode: 0o755, Xattrs: []Xattr{{"user.x", "1"}}},
		file("a/b", "text"),
		{Path: "a/c", Kind: Symlink, Target: "../..", Mode: 0o777, Mtime: -1},
		file("a-b", "more"),
		{Path: "c", Kind: Link, Target: "a/b"},
		{Path: "d\xff\n", Kind: Char, Major: 1, Minor: 3},
	}
}

func encoded(list []Entry) []byte {
	var b []byte
	for i := range list {
		b = list[i].Append(b)
	}
	return b
}

func equal(a, b []Entry) bool {
	return slices.EqualFunc(a, b, func(x, y Entry) bool { return x.Equal(&y) })
}

func TestListsSurviveTheTrip(t *testing.T) {
	t.Parallel()
	got, err := ReadAll(bufio.NewReader(bytes.NewReader(encoded(sample()))))
	if err != nil || !equal(got, sample()) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := Check(got); err != nil {
		t.Error(err)
	}
	whole := encoded(sample())
	for n := range whole {
		if list, err := ReadAll(bufio.NewReader(bytes.NewReader(whole[:n]))); err == nil && len(encoded(list)) != n {
			t.Errorf("what is cut after %d bytes is read as %+v", n, list)
		}
	}
}

func TestChangesLeadToTheList(t *testing.T) {
	t.Parallel()
	base := sample()
	for name, next := range map[string][]Entry{
		"nothing":   sample(),
		"all gone":  {},
		"one gone":  slices.Delete(sample(), 4, 5),
		"one new":   slices.Insert(sample(), 3, file("a/d", "new")),
		"changed":   slices.Replace(sample(), 1, 2, file("a/b", "other")),
		"all other": {file("0", ""), file("z", "")},
	} {
		changes := Changes(base, next)
		if got := Apply(base, changes); !equal(got, next) {
			t.Errorf("%s: %+v leads to %+v", name, changes, got)
		}
		if name == "nothing" && len(changes) > 0 {
			t.Errorf("%+v", changes)
		}
		if Sum(base) == Sum(next) != (name == "nothing") {
			t.Errorf("%s: the sums do not tell", name)
		}
	}
}

func TestListsThatLeadElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	dir := func(p string) Entry { return Entry{Path: p, Kind: Dir, Mode: 0o755} }
	for why, list := range map[string][]Entry{
		"no name":                          {file("", "")},
		"this is no name":                  {dir(".."), file("../x", "")},
		"no name of a file":                {dir("a"), file("a/..", "")},
		"directory that it is in":          {file("a/b", "")},
		"that it is in is not listed":      {file("a", ""), file("a/b", "")},
		"it is in is not":                  {{Path: "a", Kind: Symlink, Target: "/etc"}, file("a/passwd", "")},
		"not in order":                     {file("b", ""), file("a", "")},
		"it is not in order":               {file("a", ""), file("a", "")},
		"name of a file":                   {file("/etc", "")},
		"is no name of a file":             {dir("a"), file("a/", "")},
		"no name of":                       {file("a\x00b", "")},
		"mode":                             {{Path: "a", Kind: File, Mode: 1 << 16}},
		"not listed before":                {{Path: "a", Kind: Link, Target: "b"}, file("b", "")},
		"of a file that is not listed":     {dir("a"), {Path: "b", Kind: Link, Target: "a"}},
		"link to nothing":                  {{Path: "a", Kind: Symlink}},
		"too large":                        {{Path: "a", Kind: File, Size: MaxBytes}, {Path: "b", Kind: File, Size: 1}},
		"too large.":                       {{Path: "a", Kind: File, Size: -1}},
		"unknown kind":                     {{Path: "a", Kind: Gone}},
		"name of a file that is not there": nil,
	} {
		err := Check(list)
		if list == nil {
			if err != nil {
				t.Errorf("an empty list: %v", err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(why, ".")) {
			t.Errorf("%+v: %v, want %q", list, err, why)
		}
	}
}

func TestContentsSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	listed, other := file("a", "text"), file("a", "another")
	elsewhere := file("b", "another")
	text := AppendPiece(AppendPiece(nil, []byte("anot")), []byte("her"))
	for _, c := range []struct {
		name, fails string
		data        []byte
		want        Entry
	}{
		{"as listed", "", AppendEnd(slices.Clone(text), &listed, &listed), listed},
		{"as follows", "", AppendEnd(slices.Clone(text), &listed, &other), other},
		{"again", ErrAgain.Error(), AppendEnd(slices.Clone(text), &listed, nil), listed},
		{"another file", "damaged", AppendEnd(slices.Clone(text), &listed, &elsewhere), listed},
		{"cut in a piece", "end early", text[:3], listed},
		{"cut between pieces", "end early", text, listed},
		{"no verdict", "damaged", append(slices.Clone(text), 0, 9), listed},
	} {
		e := listed
		var got bytes.Buffer
		err := ReadContent(bufio.NewReader(bytes.NewReader(c.data)), &got, &e)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || got.String() != "another" || !e.Equal(&c.want) {
			t.Errorf("%s: %q, %+v, %v", c.name, got.String(), e, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encoded(sample()))
	f.Add(AppendEnd(AppendPiece(nil, []byte("x")), &Entry{}, &sample()[1]))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := file("a", "")
		_ = ReadContent(bufio.NewReader(bytes.NewReader(data)), io.Discard, &e)
		list, err := ReadAll(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		again, err := ReadAll(bufio.NewReader(bytes.NewReader(encoded(list))))
		if err != nil || !equal(list, again) {
			t.Errorf("%+v became %+v, %v", list, again, err)
		}
		if Check(list) == nil {
			for _, e := range list {
				if strings.HasPrefix(e.Path, "/") || strings.Contains("/"+e.Path+"/", "/../") {
					t.Errorf("%q passed", e.Path)
				}
			}
		}
	})
}
