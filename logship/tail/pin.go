package tail

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Pin is one link of this agent as it lies on the disk.
type Pin struct {
	Link    string
	Stream  string // what the links of one path have in common; see Pins.Stream
	Whose   Whose  // as its name says; zero for a host's file, or from a version that did not say it
	Held    bool   // somebody here reads it, or will
	Foreign bool   // of another epoch: made for places that are lost
	Size    int64  // bytes that removing it frees; 0 while the file has another name
	ID      Identity
}

// suffix is what a link's name says beside the file: ",EPOCH,RUNTIME,ID". It is left out where it would be too long.
func (p *Pins) suffix() string {
	s := "," + p.epoch + "," + url.QueryEscape(p.whose.Runtime) + "," + url.QueryEscape(p.whose.ID)
	if len(s) > 150 { // a name has 255 bytes, and what stands before takes less than 90
		return "," + p.epoch + ",,"
	}
	return s
}

// Stream gives what the links of one path begin with, as Pin.Stream has it.
func (p *Pins) Stream(root Root, path string) string {
	if p == nil {
		return ""
	}
	name, _ := p.name(root, path) // without a directory the base is the same
	return filepath.Base(name)
}

// parse tells what the name of a link says.
func (p *Pins) parse(dir, name string) (Pin, bool) {
	rest, ok := strings.CutPrefix(name, p.owner+"-")
	if !ok {
		return Pin{}, false
	}
	rest = strings.TrimPrefix(rest, "mirror-"+p.owner+"-")
	pin := Pin{Link: filepath.Join(dir, name)}
	file, said, _ := strings.Cut(rest, ",")
	hash, _, _ := strings.Cut(file, "-")
	pin.Stream = p.owner + "-" + hash
	_, pin.Held = p.held.Load(pin.Link)
	pin.Foreign = true
	if parts := strings.Split(said, ","); len(parts) == 3 {
		pin.Foreign = parts[0] != p.epoch
		pin.Whose.Runtime, _ = url.QueryUnescape(parts[1])
		pin.Whose.ID, _ = url.QueryUnescape(parts[2])
	}
	return pin, true
}

// List gives every link of this agent: in the directories it has used, and at the top of each local mount, where an
// agent that has lost its state would not think of looking. The nil Pins has none.
func (p *Pins) List() ([]Pin, error) {
	if p == nil {
		return nil, nil
	}
	dirs, err := mountTops()
	if err != nil {
		return nil, err
	}
	p.seen.Range(func(dir, _ any) bool {
		dirs[dir.(string)] = true
		return true
	})
	var all []Pin
	held := map[Identity]bool{}
	for dir := range dirs {
		entries, _ := os.ReadDir(dir) // not there: nothing is pinned
		for _, e := range entries {
			pin, ok := p.parse(dir, e.Name())
			var st unix.Stat_t
			if !ok || unix.Lstat(pin.Link, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			if pin.ID, err = linkIdentity(pin.Link); err != nil {
				continue // it went meanwhile
			}
			held[pin.ID] = held[pin.ID] || pin.Held
			if st.Nlink == 1 {
				pin.Size = st.Blocks * 512
			}
			all = append(all, pin)
		}
	}
	// One file system may be mounted at several places, and is then seen at each of them.
	var out []Pin
	listed := map[Identity]bool{}
	for _, pin := range all {
		if pin.Held || !held[pin.ID] && !listed[pin.ID] {
			listed[pin.ID] = true
			out = append(out, pin)
		}
	}
	return out, nil
}

// Remove removes a link that List gave, unless it is held or another file has its name by now. It succeeds when the
// link is gone already.
func (p *Pins) Remove(pin Pin) error {
	if _, held := p.held.Load(pin.Link); held {
		return fmt.Errorf("remove %s: a log that is followed needs it", pin.Link)
	}
	id, err := linkIdentity(pin.Link)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return err
	case !id.Same(pin.ID):
		return fmt.Errorf("remove %s: another file has this name by now", pin.Link)
	}
	if err := os.Remove(pin.Link); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove pin: %w", err)
	}
	_ = os.Remove(filepath.Dir(pin.Link)) // fails while something else is there
	return nil
}

func linkIdentity(link string) (Identity, error) {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Identity{}, &os.PathError{Op: "open", Path: link, Err: err}
	}
	defer unix.Close(fd)
	return identify(fd)
}

// mountTops gives the place of a pin directory in each mount that can be asked without waiting for a network.
func mountTops() (map[string]bool, error) {
	table, err := os.ReadFile("/proc/self/mountinfo") // where pins are made: always as this process sees it
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 1 {
			continue
		}
		switch k := kind[0]; {
		case strings.HasPrefix(k, "nfs"), strings.HasPrefix(k, "fuse"), strings.HasPrefix(k, "cgroup"), k == "cifs", k == "smb3",
			k == "ceph", k == "9p", k == "autofs", k == "proc", k == "sysfs", k == "nsfs":
			continue
		}
		out[filepath.Join(unescape.Replace(f[4]), PinDir)] = true
	}
	return out, nil
}

// unescape undoes what proc_pid_mountinfo(5) does to paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
