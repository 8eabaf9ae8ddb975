package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"
)

type hostileCase struct {
	name string
	tar  []byte
	err  error
	want []string
}

// hostile is the corpus of archives that try to do harm. Those without an
// expected error are harmless once unpacked by the rules, and say what must be
// there.
func hostile(t *testing.T, canary string) []hostileCase {
	deep := strings.Repeat("d/", 2100)
	rel := "../../../../../../../../../.." + canary
	p := func(ents ...ent) []byte { return pack(t, ents...) }
	return []hostileCase{
		{"parent name", p(file("../evil", "x")), ErrTraversal, nil},
		{"parent name inside", p(file("a/../../evil", "x")), ErrTraversal, nil},
		{"absolute parent name", p(file("/../evil", "x")), ErrTraversal, nil},
		{"parent directory", p(dir("../evil")), ErrTraversal, nil},
		{"long way up", p(file(rel+"/evil", "x")), ErrTraversal, nil},
		{"absolute name is taken as relative", p(file(canary+"/evil", "x")), nil, nil},
		{"dots that stay inside", p(file("a/./b/../c", "x")), nil, []string{"a/", "a/c=x"}},

		{"symlink up", p(sym("l", "../../x")), ErrTraversal, nil},
		{"symlink up from below", p(sym("a/b/l", "../../../x")), ErrTraversal, nil},
		{"symlink up to the root is fine", p(sym("a/b/l", "../../x")), nil, []string{"a/", "a/b/", "a/b/l -> ../../x"}},
		{"absolute symlink is data", p(sym("l", canary)), nil, []string{"l -> " + canary}},
		{"file through absolute symlink", p(sym("l", canary), file("l/evil", "x")), nil, nil},
		{"directory through absolute symlink", p(sym("l", canary), dir("l/d")), nil, nil},
		{"file through symlink to /", p(sym("l", "/"), file("l/evil", "x")), nil, []string{"evil=x", "l -> /"}},
		{"file through symlink climbing by another", p(dir("a"), dir("a/b"), sym("a/b/up", "../.."), sym("x", "a/b/up/.."), file("x/evil", "y")), ErrTraversal, nil},
		{"symlink loop", p(sym("a", "b"), sym("b", "a"), file("a/x", "x")), ErrField, nil},
		{"symlink to itself", p(sym("a", "a"), file("a/x", "x")), ErrField, nil},
		{"file over symlink replaces it", p(sym("l", canary+"/file"), file("l", "new")), nil, []string{"l=new"}},
		{"directory over symlink replaces it", p(sym("l", canary), dir("l"), file("l/f", "x")), nil, []string{"l/", "l/f=x"}},
		{"symlink over directory, then through it", p(dir("d"), file("d/f", "1"), sym("d", canary), file("d/g", "2")), nil, nil},
		{"empty symlink", p(file("a", "")), nil, []string{"a="}},
		{"device through symlink", p(sym("l", canary), char("l/dev", 1, 3)), nil, nil},
		{"whiteout through symlink", p(sym("l", canary), file("l/.wh.file", "")), nil, nil},
		{"opaque through symlink", p(sym("l", canary), file("l/.wh..wh..opq", "")), nil, nil},
		{"attributes through symlink", p(sym("l", canary), dir("l/.").with(func(h *tar.Header) { h.Mode = 0o777 })), nil, []string{"l/"}},
		{"symlink then symlink's own mode", p(sym("l", canary+"/file").with(func(h *tar.Header) { h.Mode = 0o4777; h.Uid = 1234 })), nil, []string{"l -> " + canary + "/file"}},

		{"hard link up", p(hard("l", "../../etc/passwd")), ErrTraversal, nil},
		{"hard link to absolute name stays inside", p(hard("l", canary+"/file")), ErrLink, nil},
		{"hard link to nothing", p(hard("l", "nothing")), ErrLink, nil},
		{"hard link through symlink out", p(sym("d", canary), hard("l", "d/file")), ErrLink, nil},
		{"hard link to symlink out, then write", p(sym("s", canary+"/file"), hard("l", "s"), file("l", "evil")), nil, []string{"l=evil", "s -> " + canary + "/file"}},
		{"hard link to directory", p(dir("d"), hard("l", "d")), ErrLink, nil},
		{"hard link to whiteout", p(file(".wh.x", ""), hard("l", "x")), ErrLink, nil},
		{"hard link to whiteout's name", p(file(".wh.x", ""), hard("l", ".wh.x")), ErrLink, nil},
		{"hard link to itself", p(file("f", "x"), hard("f", "f")), nil, []string{"f=x"}},
		{"hard link over what holds its target", p(dir("d"), file("d/f", "x"), hard("d", "d/f")), ErrLink, nil},
		{"hard link to the root", p(hard("l", ".")), ErrLink, nil},
		{"hard link then overwrite keeps the first", p(file("a", "1"), hard("b", "a"), file("b", "2")), nil, []string{"a=1", "b=2"}},

		{"whiteout of dot dot", p(file(".wh...", "")), ErrWhiteout, nil},
		{"whiteout of dot", p(file(".wh..", "")), ErrWhiteout, nil},
		{"whiteout of nothing", p(file(".wh.", "")), ErrWhiteout, nil},
		{"whiteout below", p(file("d/.wh...", "")), ErrWhiteout, nil},
		{"reserved whiteout", p(file(".wh..wh.evil", "")), ErrWhiteout, nil},
		{"whiteout of a whiteout", p(file(".wh..wh..opq.x", "")), ErrWhiteout, nil},
		{"whiteout as directory", p(dir(".wh.d")), ErrWhiteout, nil},
		{"file inside whiteout", p(file(".wh.d/f", "x")), ErrWhiteout, nil},
		{"file inside made whiteout", p(file(".wh.d", ""), file("d/f", "x")), ErrField, nil},
		{"aufs' own files", p(dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", "")), nil, []string{}},

		{"device that is a whiteout", p(char("d", 0, 0)), ErrReserved, nil},
		{"device with impossible number", p(char("d", 1<<12, 0)), ErrDevice, nil},
		{"device with impossible minor", p(char("d", 1, 1<<20)), ErrDevice, nil},
		{"overlay attribute", p(dir("d").pax(paxXattr+"trusted.overlay.redirect", "/etc")), ErrReserved, nil},
		{"overlay attribute on a file", p(file("d", "").pax(paxXattr+"trusted.overlay.metacopy", "")), ErrReserved, nil},
		{"overlay attribute on the root", p(dir("./").pax(paxXattr+"trusted.overlay.opaque", "y")), ErrReserved, nil},

		{"overlay attribute, escaped", p(dir("d").pax(paxXattr+"trusted.overlay.%25", "y")), ErrReserved, nil},

		{"root as a file", p(file(".", "x")), ErrEntryType, nil},
		{"root as a symlink", p(sym("./", canary)), ErrEntryType, nil},
		{"owner that means keep", p(file("f", "").with(func(h *tar.Header) { h.Uid = 1<<32 - 1 })), ErrField, nil},
		{"owner beyond", p(file("f", "").with(func(h *tar.Header) { h.Gid = 1 << 40 })), ErrField, nil},
		{"negative size", append(rawHeader('0', "f", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", ""), make([]byte, 1024)...), ErrCorrupt, nil},
		{"size that is no number", append(rawHeader('0', "f", "zzzzzzzzzzz\x00", ""), make([]byte, 1024)...), ErrCorrupt, nil},
		{"huge size", append(rawHeader('0', "f", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", ""), make([]byte, 1024)...), ErrTooLarge, nil},
		{"negative size by PAX", paxFile("size", "-1"), ErrCorrupt, nil},
		{"huge size by PAX", paxFile("size", "9223372036854775807"), ErrTooLarge, nil},
		{"size beyond numbers by PAX", paxFile("size", "99999999999999999999"), ErrCorrupt, nil},
		{"name of 5 KiB by PAX", p(file(strings.Repeat("p", 5<<10), "x")), ErrField, nil},
		{"symlink's target of 5 KiB by PAX", p(sym("l", strings.Repeat("p", 5<<10))), ErrField, nil},
		{"attribute of 70 KiB", p(file("f", "").pax(paxXattr+"user.a", strings.Repeat("v", 70<<10))), ErrField, nil},
		{"PAX records of 2 MiB", paxFile("comment", strings.Repeat("v", 2<<20)), ErrCorrupt, nil},
		{"set-uid is kept", p(file("f", "x").with(func(h *tar.Header) { h.Mode = 0o6755 })), nil, []string{"f=x"}},
		{"whiteout by way of dot dot", p(file("a/../.wh.b", "")), nil, []string{"b c0:0"}},
		{"whiteout of what is above", p(file("a/../../.wh.b", "")), ErrTraversal, nil},
		{"hard link to a symlink, then through it", p(sym("a", canary), hard("b", "a"), file("b/evil", "x")), nil, nil},
		{"hard link by way of a symlink up", p(dir("d"), sym("d/up", ".."), hard("l", "d/up/../../etc/passwd")), ErrLink, nil},
		{"name that looks packed", p(file("\x1f\x8b\x08x", "1"), file("BZh91AY&SYx", "2")), nil, []string{"\x1f\x8b\x08x=1", "BZh91AY&SYx=2"}},
		{"unknown type", append(rawHeader('Z', "f", "00000000000\x00", ""), make([]byte, 1024)...), ErrEntryType, nil},
		{"name of more than a name's length", p(file(strings.Repeat("n", 300), "x")), ErrField, nil},
		{"path of more than a path's length", p(file(deep+"f", "x")), ErrField, nil},
		{"deep by way of a symlink", p(dir(strings.Repeat("d/", 1900)), sym("l", strings.Repeat("d/", 1900)), file("l/"+strings.Repeat("e/", 300)+"f", "x")), ErrField, nil},
		{"newline in the name", p(file("a\nb", "x")), nil, []string{"a\nb=x"}},
		{"not UTF-8", p(file("a\xff\xfeb", "x")), nil, []string{"a\xff\xfeb=x"}},
		{"file where a directory is needed", p(file("a", "x"), file("a/b", "y")), ErrField, nil},
		{"file replaces directory", p(dir("a"), file("a/b", "1"), file("a", "x")), nil, []string{"a=x"}},
		{"directory replaces file", p(file("a", "x"), dir("a"), file("a/b", "1")), nil, []string{"a/", "a/b=1"}},
		{"duplicate file: the last wins", p(file("a", "1"), file("a", "2")), nil, []string{"a=2"}},
		{"no tar at all", []byte(strings.Repeat("this is no archive. ", 100)), ErrCorrupt, nil},
		{"header cut", p(file("a", "x"))[:300], ErrCorrupt, nil},
		{"data cut", p(file("a", strings.Repeat("x", 5000)))[:1024], ErrCorrupt, nil},
		{"xz", append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...), ErrCompressor, nil},
		{"gzip of nothing readable", []byte{0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff, 1, 2, 3}, ErrCorrupt, nil},
		{"garbage after gzip", append(gz(p(file("a", "x"))), "garbage"...), ErrCorrupt, nil},
	}
}

// sparseTar is an archive with one file in the old GNU sparse format: a block
// of data at its beginning and the rest a hole.
func sparseTar(name string, size int64) []byte {
	h := rawHeader('S', name, "00000001000\x00", "")
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 512)) // first fragment
	if size < 1<<33 {
		copy(h[386+24:], fmt.Sprintf("%011o\x00%011o\x00", size, 0)) // end
		copy(h[483:], fmt.Sprintf("%011o\x00", size))
	} else { // base 256
		big := make([]byte, 12)
		big[0] = 0x80
		for i, v := 11, size; v > 0; i, v = i-1, v>>8 {
			big[i] = byte(v)
		}
		copy(h[386+24:], append(big, []byte("00000000000\x00")...))
		copy(h[483:], big)
	}
	out := append(checksum(h), bytes.Repeat([]byte("D"), 512)...)
	return append(out, make([]byte, 1024)...)
}

// paxFile is an archive with one file that has a PAX record which no sane
// archiver writes.
func paxFile(key, value string) []byte {
	record := " " + key + "=" + value + "\n"
	n := len(record) + 1
	for len(fmt.Sprint(n))+len(record) != n {
		n++
	}
	data := fmt.Sprint(n) + record
	out := rawHeader('x', "PaxHeaders/f", fmt.Sprintf("%011o\x00", len(data)), "")
	out = append(out, data...)
	out = append(out, make([]byte, (512-len(data)%512)%512)...)
	out = append(out, rawHeader('0', "f", "00000000000\x00", "")...)
	return append(out, make([]byte, 1024)...)
}
