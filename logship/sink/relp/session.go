package relp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The bounds that the protocol gives.
const (
	lastNumber = 999_999_999 // of a command; 1 follows
	dataLimit  = 128 << 10   // of an answer, which is some words
)

// session is one connection from its open command on.
type session struct {
	bytes net.Conn
	in    *bufio.Reader
	out   *bufio.Writer
	next  int // number of the next command
}

func newSession(c net.Conn) *session {
	return &session{bytes: c, in: bufio.NewReader(c), out: bufio.NewWriterSize(c, 64<<10), next: 1}
}

// patience gives the peer its time for the next answer anew.
func (s *session) patience() { _ = s.bytes.SetDeadline(time.Now().Add(answerTime)) }

// open offers what we want and reads what the peer grants.
func (s *session) open() error {
	if err := errors.Join(s.command("open", []byte("relp_version=0\nrelp_software=fairlead\ncommands=syslog")), s.flush()); err != nil {
		return err
	}
	n, text, err := s.answer()
	if err != nil {
		return err
	}
	head, offers, _ := strings.Cut(text, "\n")
	if n != 1 || !strings.HasPrefix(head, "200") {
		return fmt.Errorf("peer answers %.200q", head)
	}
	for offer := range strings.Lines(offers) {
		name, value, _ := strings.Cut(strings.TrimRight(offer, "\r\n"), "=")
		switch {
		case name == "relp_version" && value != "0" && value != "1":
			return fmt.Errorf("peer speaks version %.20q", value)
		case name == "commands" && !strings.Contains(","+value+",", ",syslog,"):
			return fmt.Errorf("peer takes %.100q and no syslog", value)
		}
	}
	return nil
}

// command writes NUMBER SP NAME SP LENGTH [SP DATA] LF into the buffer.
func (s *session) command(name string, data []byte) error {
	b := strconv.AppendInt(s.out.AvailableBuffer(), int64(s.next), 10)
	b = append(append(append(b, ' '), name...), ' ')
	b = strconv.AppendInt(b, int64(len(data)), 10)
	if len(data) > 0 {
		b = append(b, ' ')
	}
	s.next = following(s.next)
	_, err := s.out.Write(b)
	if err == nil {
		_, err = s.out.Write(data)
	}
	if err == nil {
		err = s.out.WriteByte('\n')
	}
	return err
}

func (s *session) flush() error { return s.out.Flush() }

// errLeft: the peer says that it closes the session.
var errLeft = errors.New("peer closed the session")

// answer reads the next answer: to which command, and its text. A serverclose is errLeft.
func (s *session) answer() (number int, text string, err error) {
	n, name, data, err := s.frame()
	switch {
	case err != nil:
		return 0, "", err
	case n == 0 && name == "serverclose":
		return 0, "", errLeft
	case name != "rsp":
		return 0, "", fmt.Errorf("peer sent %.20q where an answer is due", name)
	}
	return n, string(data), nil
}

func (s *session) frame() (number int, name string, data []byte, err error) {
	if number, err = s.number(' '); err != nil {
		return 0, "", nil, err
	}
	word, err := s.word(32)
	if err != nil {
		return 0, "", nil, err
	}
	size, last, err := s.size()
	if err != nil {
		return 0, "", nil, err
	}
	if size > dataLimit {
		return 0, "", nil, fmt.Errorf("answer of %d bytes", size)
	}
	if size > 0 {
		data = make([]byte, size)
		if last != ' ' {
			return 0, "", nil, errors.New("frame without its data")
		}
		if _, err = io.ReadFull(s.in, data); err == nil {
			last, err = s.in.ReadByte()
		}
	} else if last == ' ' { // librelp writes "0 serverclose 0 \n"
		last, err = s.in.ReadByte()
	}
	if err == nil && last != '\n' {
		err = errors.New("frame without its end")
	}
	return number, word, data, err
}

// number reads digits up to end.
func (s *session) number(end byte) (int, error) {
	n, last, err := s.size()
	if err == nil && last != end {
		err = fmt.Errorf("byte %q after a number", last)
	}
	return n, err
}

// size reads digits and the byte after them.
func (s *session) size() (n int, last byte, err error) {
	for digits := 0; ; digits++ {
		c, err := s.in.ReadByte()
		switch {
		case err != nil:
			return 0, 0, err
		case c < '0' || c > '9':
			if digits == 0 {
				err = fmt.Errorf("byte %q where a number is due", c)
			}
			return n, c, err
		case digits == 9:
			return 0, 0, errors.New("number of more than nine digits")
		}
		n = n*10 + int(c-'0')
	}
}

// word reads up to a space.
func (s *session) word(limit int) (string, error) {
	var b []byte
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ' ' {
			return string(b), nil
		}
		if b = append(b, c); len(b) > limit {
			return "", fmt.Errorf("command %.40q", b)
		}
	}
}

// left tells whether the peer has said, while nothing was under way, that it closes, or has closed.
func (s *session) left() bool {
	_ = s.bytes.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	_, err := s.in.Peek(1)
	_ = s.bytes.SetReadDeadline(time.Time{})
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// end says that we close, and closes. It is for a session in which every command has its answer, so nothing is waited for.
func (s *session) end() error {
	_ = s.bytes.SetWriteDeadline(time.Now().Add(time.Second))
	_ = errors.Join(s.command("close", nil), s.flush()) // a peer that has gone needs no word
	return s.bytes.Close()
}

func following(n int) int {
	if n == lastNumber {
		return 1
	}
	return n + 1
}

// distance is how many commands after first n was sent.
func distance(first, n int) int {
	if n < first {
		n += lastNumber
	}
	return n - first
}
