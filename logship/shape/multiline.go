package shape

import (
	"bytes"
	"regexp"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
)

// join says which lines make one record.
type join struct {
	starts   func(text []byte) bool                           // begins a record when none is open; else it goes through alone
	follows  func(phase int, text []byte) (next int, ok bool) // continues the open record, which is in that phase
	maxLines int
	maxBytes int
	timeout  time.Duration
}

// group is a record that more lines may be added to. Its text is its own memory.
type group struct {
	open      bool
	malformed bool
	std       decode.Std
	phase     int
	lines     int
	at        int64
	touched   int64 // the reader's clock when the last line came
	from, end decode.Mark
	text      []byte
}

func (j *join) belongs(g *group, text []byte) bool {
	next, ok := j.follows(g.phase, text)
	if ok {
		g.phase = next
	}
	return ok
}

func (j *join) fits(g *group, text []byte) bool {
	return g.lines < j.maxLines && len(g.text)+1+len(text) <= j.maxBytes
}

func (g *group) begin(l decode.Line, from, end decode.Mark, now int64) {
	g.open, g.malformed, g.std, g.phase, g.lines, g.at = true, l.Malformed, l.Std, 0, 1, l.At
	g.from, g.end, g.touched = from, end, now
	g.text = append(g.text[:0], l.Text...)
}

func (g *group) add(text []byte, end decode.Mark, now int64) {
	g.text = append(append(g.text, '\n'), text...)
	g.lines++
	g.end, g.touched = end, now
}

// close forgets the text, and its memory when it was large: an idle log holds next to nothing.
func (g *group) close() {
	g.open = false
	if cap(g.text) > 64<<10 {
		g.text = nil
	}
	g.text = g.text[:0]
}

// startsWith makes each line that matches begin a record; all others continue one.
func startsWith(pattern *regexp.Regexp) join {
	return join{
		starts:  func([]byte) bool { return true }, // also what comes before the first start
		follows: func(_ int, text []byte) (int, bool) { return 0, !pattern.Match(text) },
	}
}

const presetNames = "go, java, python"

// presets are what `multiline` may name instead of a pattern.
var presets = map[string]join{
	"go":     {starts: goStart.Match, follows: goFollows},
	"java":   {starts: func([]byte) bool { return true }, follows: javaFollows},
	"python": {starts: pythonStart, follows: pythonFollows},
}

// A Go program's panic or fatal error: what the runtime prints until the process ends (runtime/panic.go,
// runtime/traceback.go). net/http prints the same below its own first line and goes on.
var (
	goStart = regexp.MustCompile(`^(panic: |fatal error: |unexpected fault address |SIG[A-Z]+: |.*http: panic serving )`)
	goLine  = regexp.MustCompile(`^(\s|$|goroutine \d+ |panic: |fatal error: |\[signal |created by |exit status \d|runtime\.|rax |rip |PC=|[\w./*()\-·\[\]{}%~:,]+\([^ ]*.*\)$|\[recovered|main\.)`)
)

func goFollows(_ int, text []byte) (int, bool) { return 0, goLine.Match(text) }

// A Java stack trace belongs to the line before it, so each line waits for the next.
var (
	javaFrame     = regexp.MustCompile(`^(\s+(at |\.\.\. \d+ |Suppressed: |- locked|Caused by: )|Caused by: |\s+\S|\.\.\. \d+ more)`)
	javaException = regexp.MustCompile(`^(\w+\.)+[A-Z][\w$]*(Exception|Error|Throwable|Fault)\b`)
)

func javaFollows(phase int, text []byte) (int, bool) {
	if javaFrame.Match(text) {
		return 1, true
	}
	return 0, phase == 0 && javaException.Match(text) // the exception that a message tells of
}

// A Python traceback: the head, indented frames, one line with the exception; then perhaps a blank line and the
// traceback of what happened while that was handled (traceback.py, _cause_message and _context_message).
var (
	pythonHead  = []byte("Traceback (most recent call last):")
	pythonCause = [][]byte{[]byte("The above exception was the direct cause"), []byte("During handling of the above exception")}
)

const (
	pyFrames = iota
	pyEnded  // the line with the exception has come
	pyBlank  // and a blank one after it
	pyCause
)

func pythonStart(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t"), pythonHead)
}

func pythonFollows(phase int, text []byte) (int, bool) {
	blank := len(bytes.TrimSpace(text)) == 0
	indented := len(text) > 0 && (text[0] == ' ' || text[0] == '\t')
	switch phase {
	case pyFrames:
		if blank || indented {
			return pyFrames, true
		}
		return pyEnded, !pythonStart(text)
	case pyEnded:
		return pyBlank, blank
	case pyBlank:
		return pyCause, bytes.HasPrefix(text, pythonCause[0]) || bytes.HasPrefix(text, pythonCause[1])
	}
	if blank {
		return pyCause, true
	}
	return pyFrames, pythonStart(text)
}
