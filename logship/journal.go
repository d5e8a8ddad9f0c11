package logship

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// Journal is a selection of systemd's journal to follow.
type Journal struct {
	Unit  string   `yaml:"unit" doc:"a unit such as nginx.service; records are named after it"`
	Match []string `yaml:"match" doc:"FIELD=VALUE as journalctl takes them, besides the unit or instead of it"`
	Name  string   `yaml:"name" doc:"what records are named; default: the unit"`
}

func (j Journal) name() string { return or(j.Name, j.Unit) }

func (j Journal) validate(key string, bad func(key, got, expected string)) {
	if j.Unit == "" && len(j.Match) == 0 {
		bad(key+"unit", "", "a unit such as nginx.service, or match")
	}
	if j.name() == "" {
		bad(key+"name", "", "a name for the records, because there is no unit")
	}
	for i, m := range j.Match {
		if field, _, ok := strings.Cut(m, "="); !ok || field == "" || strings.Trim(field, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			bad(fmt.Sprintf("%smatch[%d]", key, i), m, "FIELD=VALUE")
		}
	}
}

// journal reads entries by journalctl, which alone knows the journal's formats and finds its files.
type journal struct {
	args      []string // what to select, and where
	container bool     // lines of a container: PRIORITY tells stdout from stderr, long lines come in pieces
	follow    bool
}

func (j Journal) source(directory string) *journal {
	s := &journal{follow: true}
	if directory != "" {
		s.args = append(s.args, "--directory="+directory)
	}
	if j.Unit != "" {
		s.args = append(s.args, "--unit="+j.Unit)
	}
	s.args = append(s.args, j.Match...)
	return s
}

// ofContainer selects what Podman's and Docker's journald drivers write for one container.
func ofContainer(id, directory string) *journal {
	s := &journal{args: []string{"CONTAINER_ID_FULL=" + id}, container: true, follow: true}
	if directory != "" {
		s.args = append([]string{"--directory=" + directory}, s.args...)
	}
	return s
}

// errNoJournalctl says what is missing where there is no systemd.
var errNoJournalctl = errors.New("journalctl is not installed; the journal can be read on a host with systemd only, or by mounting the host's journal and journalctl")

// pump copies entries after the spool's last one into the spool, until ctx ends or journalctl does.
func (j *journal) pump(ctx context.Context, sp *spool) error {
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return errNoJournalctl
	}
	cursor, err := j.cursor(sp)
	if err != nil {
		return err
	}
	// --all: without it a field of more than 4 KiB is null.
	args := append([]string{"--quiet", "--all", "--no-tail", "--output=json", "--output-fields=MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE"}, j.args...)
	if j.follow {
		args = append(args, "--follow")
	}
	if cursor != "" {
		args = append(args, "--after-cursor="+cursor)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start journalctl: %w", err)
	}
	err = j.copy(ctx, out, sp)
	stopped := ctx.Err() != nil
	if err != nil {
		stop()
	}
	if ended := cmd.Wait(); err == nil && ended != nil && !stopped {
		err = fmt.Errorf("journalctl: %w: %s", ended, bytes.TrimSpace(said.Bytes()))
	}
	if err == nil && j.follow && !stopped {
		err = fmt.Errorf("journalctl ended: %s", bytes.TrimSpace(said.Bytes()))
	}
	return err
}

func (j *journal) copy(ctx context.Context, out io.Reader, sp *spool) error {
	r := bufio.NewReaderSize(out, 64<<10)
	var text []byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			if len(text) > 0 {
				return sp.write(ctx, text)
			}
			return nil // what is torn comes again
		}
		if text, err = j.render(text, line); err != nil {
			return err
		}
		if len(text) > 0 && (r.Buffered() == 0 || len(text) > 64<<10) {
			if err := sp.write(ctx, text); err != nil {
				return err
			}
			text = text[:0]
		}
	}
}

type journalEntry struct {
	Cursor   string          `json:"__CURSOR"`
	Realtime string          `json:"__REALTIME_TIMESTAMP"` // microseconds
	Message  json.RawMessage `json:"MESSAGE"`
	Priority string          `json:"PRIORITY"`
	Partial  string          `json:"CONTAINER_PARTIAL_MESSAGE"`
}

// render adds an entry as a line of the spool.
func (j *journal) render(b, line []byte) ([]byte, error) {
	var e journalEntry
	if err := json.Unmarshal(line, &e); err != nil {
		return b, fmt.Errorf("read journalctl's output: %w", err)
	}
	us, err := strconv.ParseInt(e.Realtime, 10, 64)
	if err != nil || e.Cursor == "" || strings.ContainsAny(e.Cursor, " :\"\\\n") {
		return b, fmt.Errorf("read journalctl's output: entry without time or cursor: %.200q", line)
	}
	text, at := message(e.Message), time.UnixMicro(us)
	if j.container {
		return appendCRI(b, at, e.Priority == "3", e.Partial == "true", e.Cursor, bytes.ReplaceAll(text, []byte("\n"), []byte(" "))), nil
	}
	b = append(b, `{"log":`...)
	b = post.AppendJSON(b, append(text, '\n'))
	b = append(b, `,"time":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","cursor":"`...), e.Cursor...)
	return append(b, "\"}\n"...), nil
}

// message reads a field as journalctl writes it: a string, an array of bytes when it is no text, an array of several
// values when the field was given more than once, null when it is absent.
func message(raw json.RawMessage) []byte {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	var numbers []int
	if json.Unmarshal(raw, &numbers) == nil {
		b := make([]byte, len(numbers))
		for i, n := range numbers {
			b[i] = byte(n)
		}
		return b
	}
	var several []json.RawMessage
	var out []byte
	if json.Unmarshal(raw, &several) == nil {
		for i, v := range several {
			if i > 0 {
				out = append(out, '\n')
			}
			out = append(out, message(v)...)
		}
	}
	return out
}

// cursor reads the last entry's from the spool.
func (j *journal) cursor(sp *spool) (string, error) {
	lines, err := sp.last()
	if err != nil {
		return "", err
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if c := cursorOf(lines[i]); c != "" {
			return c, nil
		}
	}
	return "", nil
}

func cursorOf(line []byte) (cursor string) {
	if bytes.HasPrefix(line, []byte("{")) {
		var arena decode.Arena
		if !decode.Object(line, &arena, func(key []byte, v decode.Value) bool {
			if string(key) == "cursor" {
				cursor = string(v.Text)
			}
			return true
		}) {
			return ""
		}
		return cursor
	}
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) < 4 {
		return ""
	}
	_, tag, _ := bytes.Cut(parts[2], []byte(":"))
	return string(tag)
}
