//go:build kernel

package treetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestComparerSeesEachKindOfDifference(t *testing.T) {
	hosttest.Root(t)
	a := hosttest.Dir(t) + "/a"
	must(t, os.Mkdir(a, 0o755))
	Make(t, a)
	b := strings.TrimSuffix(a, "a") + "b"
	for want, spoil := range map[string]func(path func(string) string) error{
		`"owned": only in`: func(p func(string) string) error { return os.Remove(p("owned")) },
		`"new": only in`:   func(p func(string) string) error { return os.WriteFile(p("new"), nil, 0o600) },
		`"empty": kind`: func(p func(string) string) error {
			return replace(p("empty"), func(s string) error { return os.Mkdir(s, 0o644) })
		},
		`"suid": mode`:                func(p func(string) string) error { return unix.Chmod(p("suid"), 0o755) },
		`"sticky": mode`:              func(p func(string) string) error { return unix.Chmod(p("sticky"), 0o777) },
		`"owned": owner`:              func(p func(string) string) error { return unix.Chown(p("owned"), 1, -1) },
		`"owned": group`:              func(p func(string) string) error { return unix.Chown(p("owned"), -1, 1) },
		`"dated-link": owner`:         func(p func(string) string) error { return unix.Lchown(p("dated-link"), 1, -1) },
		`"old": time 1.123456789`:     func(p func(string) string) error { return nudge(p("old")) },
		`"dated": time`:               func(p func(string) string) error { return nudge(p("dated")) },
		`"dated-link": time`:          func(p func(string) string) error { return nudge(p("dated-link")) },
		`"fifo": time`:                func(p func(string) string) error { return nudge(p("fifo")) },
		`".": time`:                   func(p func(string) string) error { return nudge(p(".")) },
		`"tagged": attributes`:        func(p func(string) string) error { return unix.Removexattr(p("tagged"), "user.empty") },
		`"labelled": attributes`:      func(p func(string) string) error { return unix.Removexattr(p("labelled"), "security.fairlead_test") },
		`"labelled-link": attributes`: func(p func(string) string) error { return unix.Lremovexattr(p("labelled-link"), "trusted.on_a_link") },
		`"shared": attributes`: func(p func(string) string) error {
			return unix.Setxattr(p("shared"), "system.posix_acl_access", acl(1234, 4), 0)
		},
		`"shared-dir": attributes`: func(p func(string) string) error {
			return unix.Removexattr(p("shared-dir"), "system.posix_acl_default")
		},
		`"ping": attributes`: func(p func(string) string) error { return unix.Removexattr(p("ping"), "security.capability") },
		`"zz-linked": names`: func(p func(string) string) error { return unlink(p("zz-linked")) },
		`"up-link": target`: func(p func(string) string) error {
			return replace(p("up-link"), func(s string) error { return os.Symlink(".", s) })
		},
		`"null": device`: func(p func(string) string) error {
			return replace(p("null"), func(s string) error { return unix.Mknod(s, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
		},
		`"disk": device`: func(p func(string) string) error {
			return replace(p("disk"), func(s string) error { return unix.Mknod(s, unix.S_IFBLK|0o660, int(unix.Mkdev(7, 301))) })
		},
		`"hole": data at`:       func(p func(string) string) error { return fill(p("hole")) },
		`"old": size`:           func(p func(string) string) error { return os.Truncate(p("old"), 3) },
		`"large": content`:      func(p func(string) string) error { return flip(p("large"), 3<<20) },
		`"two\nlines": content`: func(p func(string) string) error { return flip(p("two\nlines"), 0) },
	} {
		must(t, exec.Command("cp", "-a", "--sparse=always", a, b).Run())
		if got, err := Compare(a, b); err != nil || len(got) > 0 {
			t.Fatalf("a copy differs (%v):\n%s", err, strings.Join(got, "\n"))
		}
		must(t, spoil(func(name string) string { return b + "/" + name }))
		got, err := Compare(a, b)
		must(t, err)
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("not seen: %s; seen:\n%s", want, strings.Join(got, "\n"))
		}
		must(t, os.RemoveAll(b))
	}
}

func replace(path string, with func(string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return with(path)
}

func nudge(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	st.Mtim.Nsec ^= 1
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func unlink(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return replace(path, func(s string) error { return os.WriteFile(s, b, 0o644) })
}

func fill(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, 1<<20), 2<<20)
	if err == nil {
		err = f.Sync()
	}
	_ = f.Close()
	return err
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("!"), at)
	_ = f.Close()
	return err
}
