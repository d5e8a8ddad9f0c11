package detect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mountpoint is one line of a mount table (proc_pid_mountinfo(5)).
type mountpoint struct {
	id, root, point, fstype, super string
}

func (h Host) mountTable() ([]mountpoint, error) {
	text, err := os.ReadFile(filepath.Join(h.Proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMountinfo(string(text)), nil
}

// parseMountinfo reads "id parent dev root point options ... - type source superoptions"; other lines are passed over.
func parseMountinfo(text string) []mountpoint {
	var out []mountpoint
	for line := range strings.Lines(text) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 3 {
			continue
		}
		out = append(out, mountpoint{id: l[0], root: unescape.Replace(l[3]), point: unescape.Replace(l[4]), fstype: r[0], super: unescape.Replace(r[2])})
	}
	return out
}

// option gives the value of a super option such as upperdir.
func (m mountpoint) option(key string) string {
	for o := range strings.SplitSeq(m.super, ",") {
		if v, ok := strings.CutPrefix(o, key+"="); ok {
			return v
		}
	}
	return ""
}

// unescape undoes what the kernel does to characters that would break the table.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
