package treetest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Kind is one kind of entry and how to make it in a directory.
type Kind struct {
	Name string
	make func(t testing.TB, dir string)
}

// Kinds are all that a volume may hold and that a tool may lose. They need root.
func Kinds() []Kind {
	return []Kind{
		{"setuid and setgid", func(t testing.TB, d string) {
			file(t, d, "suid", "#!/bin/true\n")
			must(t, unix.Chown(d+"/suid", 1000, 1000), unix.Chmod(d+"/suid", 0o6755))
		}},
		{"sticky directory", func(t testing.TB, d string) { dir(t, d, "sticky", 0o1777) }},
		{"mode 000", func(t testing.TB, d string) {
			file(t, d, "secret", "nobody may read this\n")
			must(t, unix.Chmod(d+"/secret", 0))
			dir(t, d, "closed", 0o700)
			file(t, d+"/closed", "inside", "x")
			must(t, unix.Chmod(d+"/closed", 0))
		}},
		{"owner", func(t testing.TB, d string) {
			file(t, d, "owned", "of 12345:54321\n")
			must(t, unix.Chown(d+"/owned", 12345, 54321))
		}},
		{"time of a file", func(t testing.TB, d string) { file(t, d, "old", "1970"); touch(t, d+"/old", 1, 123456789) }},
		{"time of a directory", func(t testing.TB, d string) {
			dir(t, d, "dated", 0o755)
			file(t, d+"/dated", "in", "x")
			touch(t, d+"/dated", 981173106, 987654321)
		}},
		{"time of a symbolic link", func(t testing.TB, d string) {
			must(t, os.Symlink("old", d+"/dated-link"))
			touch(t, d+"/dated-link", 1234567890, 42)
		}},
		{"user attribute", func(t testing.TB, d string) {
			file(t, d, "tagged", "x")
			must(t, unix.Setxattr(d+"/tagged", "user.origin", []byte("here\x00and \xff there"), 0), unix.Setxattr(d+"/tagged", "user.empty", nil, 0))
		}},
		{"security attribute", func(t testing.TB, d string) {
			file(t, d, "labelled", "x")
			must(t, unix.Setxattr(d+"/labelled", "security.fairlead_test", []byte("label"), 0))
			must(t, os.Symlink("labelled", d+"/labelled-link"))
			must(t, unix.Lsetxattr(d+"/labelled-link", "trusted.on_a_link", []byte("too"), 0))
		}},
		{"ACL", func(t testing.TB, d string) {
			file(t, d, "shared", "x")
			must(t, unix.Setxattr(d+"/shared", "system.posix_acl_access", acl(1234, 5), 0))
			dir(t, d, "shared-dir", 0o750)
			must(t, unix.Setxattr(d+"/shared-dir", "system.posix_acl_default", acl(4321, 7), 0))
			file(t, d+"/shared-dir", "heir", "x")
		}},
		{"capability", func(t testing.TB, d string) {
			file(t, d, "ping", "#!/bin/true\n")
			must(t, unix.Chown(d+"/ping", 1000, 0), unix.Chmod(d+"/ping", 0o755))
			v := binary.LittleEndian.AppendUint32(nil, 0x02000001) // VFS_CAP_REVISION_2, effective
			v = binary.LittleEndian.AppendUint32(v, 1<<13)         // CAP_NET_RAW permitted
			must(t, unix.Setxattr(d+"/ping", "security.capability", append(v, make([]byte, 12)...), 0))
		}},
		{"hard links", func(t testing.TB, d string) {
			file(t, d, "linked", "one file, three names\n")
			dir(t, d, "a-dir", 0o755)
			must(t, os.Link(d+"/linked", d+"/a-dir/linked-too"), os.Link(d+"/linked", d+"/zz-linked"))
		}},
		{"hard linked symbolic link", func(t testing.TB, d string) {
			must(t, os.Symlink("linked", d+"/link-1"), os.Link(d+"/link-1", d+"/link-2"))
		}},
		{"symbolic link", func(t testing.TB, d string) {
			must(t, os.Symlink("/etc/passwd", d+"/abs-link"), os.Symlink("..", d+"/up-link"))
		}},
		{"dangling symbolic link", func(t testing.TB, d string) {
			must(t, os.Symlink("no/such\nfile\xff", d+"/dangling"), os.Symlink(strings.Repeat("x/", 500), d+"/long-target"))
		}},
		{"fifo", func(t testing.TB, d string) { must(t, unix.Mkfifo(d+"/fifo", 0o640)) }},
		{"socket", func(t testing.TB, d string) { must(t, unix.Mknod(d+"/socket", unix.S_IFSOCK|0o666, 0)) }},
		{"device nodes", func(t testing.TB, d string) {
			must(t, unix.Mknod(d+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(d+"/disk", unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
		}},
		{"sparse file", func(t testing.TB, d string) {
			f, err := os.Create(d + "/sparse")
			must(t, err, f.Truncate(64<<20))
			for _, off := range []int64{1 << 20, 33 << 20} {
				_, err := f.WriteAt([]byte(strings.Repeat("data", 16<<10)), off)
				must(t, err)
			}
			must(t, f.Close())
			f, err = os.Create(d + "/hole")
			must(t, err, f.Truncate(10<<20), f.Close())
		}},
		{"name with a newline", func(t testing.TB, d string) { file(t, d, "two\nlines", "x"); file(t, d, " -rf *", "x") }},
		{"name that is not UTF-8", func(t testing.TB, d string) {
			file(t, d, "latin-\xe9\xff\x01", "x")
			dir(t, d, "d\xfe", 0o700)
			file(t, d+"/d\xfe", strings.Repeat("n", 255), "x")
		}},
		{"empty file and directory", func(t testing.TB, d string) { file(t, d, "empty", ""); dir(t, d, "empty-dir", 0o711) }},
		{"other tools' ignore files", func(t testing.TB, d string) {
			file(t, d, ".kopiaignore", "*\n")
			file(t, d, ".gitignore", "*\n")
			dir(t, d, "cache", 0o755)
			file(t, d+"/cache", "CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")
			file(t, d+"/cache", "precious", "kept all the same\n")
			file(t, d, ".nobackup", "")
		}},
	}
}

// Make makes every kind in the directory dir, which must be empty, and gives it odd attributes itself.
func Make(t testing.TB, dir string) {
	t.Helper()
	for _, k := range Kinds() {
		k.make(t, dir)
	}
	file(t, dir, "large", strings.Repeat("0123456789abcdef", 200<<10)) // more than one chunk
	must(t, unix.Setxattr(dir, "user.root", []byte("of the tree"), 0), unix.Chown(dir, 7, 8), unix.Chmod(dir, 0o2751))
	touch(t, dir, 1111111111, 222222222)
}

func file(t testing.TB, dir, name, content string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
}

func dir(t testing.TB, parent, name string, mode uint32) {
	t.Helper()
	must(t, unix.Mkdir(parent+"/"+name, 0o700), unix.Chmod(parent+"/"+name, mode))
}

func touch(t testing.TB, path string, sec, nsec int64) {
	t.Helper()
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

// acl is an ACL as the kernel keeps it (linux/posix_acl_xattr.h), with one named user.
func acl(user uint32, perm uint16) []byte {
	const undefined = 0xffffffff
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, undefined}, {2, perm, user}, {4, 4, undefined}, {0x10, 5, undefined}, {0x20, 0, undefined}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
