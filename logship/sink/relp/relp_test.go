package relp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// receiver is a RELP server written apart from the driver: it keeps messages and answers, late and out of order.
type receiver struct {
	t       *testing.T
	mu      sync.Mutex
	change  *sync.Cond
	ln      net.Listener
	conns   map[net.Conn]bool
	msgs    []string
	mode    sinktest.Mode
	down    bool
	rsp     string            // to open
	refuse  func(string) bool // messages answered with 500
	shuffle bool              // answers to pairs come in the wrong order
	goodbye int               // after so many messages of a connection: serverclose
	wg      sync.WaitGroup
}

func listen(t *testing.T) *receiver {
	r := &receiver{t: t, conns: map[net.Conn]bool{}, rsp: "200 OK\nrelp_version=0\nrelp_software=test\ncommands=syslog"}
	r.change = sync.NewCond(&r.mu)
	r.up()
	t.Cleanup(r.stop)
	return r
}

func (r *receiver) up() {
	addr := "127.0.0.1:0"
	if r.ln != nil {
		addr = r.ln.Addr().String()
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.ln, r.down = ln, false
	r.mu.Unlock()
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.wg.Go(func() {
				defer c.Close()
				if err := r.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
					r.t.Logf("receiver: %v", err)
				}
			})
		}
	})
}

func (r *receiver) stop() {
	_ = r.ln.Close()
	r.mu.Lock()
	r.down = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.change.Broadcast()
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *receiver) set(m sinktest.Mode) {
	r.mu.Lock()
	r.mode = m
	r.mu.Unlock()
	r.change.Broadcast()
}

func (r *receiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.msgs...)
}

func (r *receiver) serve(c net.Conn) error {
	in := bufio.NewReader(c)
	held := ""
	for taken, want := 0, 1; ; want++ {
		r.mu.Lock()
		for r.mode == sinktest.Stuck && !r.down {
			r.change.Wait()
		}
		mode := r.mode
		r.mu.Unlock()
		if mode == sinktest.Rude {
			_, _ = c.Read(make([]byte, 1))
			return nil
		}
		var n, size int
		var name string
		if _, err := fmt.Fscanf(in, "%d %s %d", &n, &name, &size); err != nil {
			return err
		}
		data := make([]byte, size)
		if size > 0 {
			if c, err := in.ReadByte(); err != nil || c != ' ' {
				return fmt.Errorf("no space before data: %w", err)
			}
		}
		if _, err := io.ReadFull(in, data); err != nil {
			return err
		}
		if c, err := in.ReadByte(); err != nil || c != '\n' {
			return fmt.Errorf("%q ends a frame: %w", c, err)
		}
		if n != want {
			r.t.Errorf("command %d is number %d", want, n)
		}
		answer := "200 OK"
		switch name {
		case "open":
			answer = r.rsp
		case "close":
			_, err := fmt.Fprintf(c, "%d rsp 0\n0 serverclose 0\n", n)
			return err
		case "syslog":
			if taken++; r.refuse != nil && r.refuse(string(data)) {
				answer = "500 not this one"
				break
			}
			r.mu.Lock()
			r.msgs = append(r.msgs, string(data))
			r.mu.Unlock()
		default:
			r.t.Errorf("command %q", name)
		}
		text := fmt.Sprintf("%d rsp %d %s\n", n, len(answer), answer)
		if r.shuffle && n%2 == 0 {
			held = text
			continue
		}
		if r.goodbye > 0 && taken >= r.goodbye {
			text += "0 serverclose 0\n"
		}
		if _, err := io.WriteString(c, text+held); err != nil {
			return err
		}
		if held = ""; r.goodbye > 0 && taken >= r.goodbye {
			return nil
		}
	}
}

func TestRELPKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := listen(t)
		return sinktest.Harness{
			New:      func() sink.Sink { return New(r.ln.Addr().String(), nil) },
			Received: r.received, Down: r.stop, Up: r.up, Set: r.set,
		}
	})
}

var origin = &sink.Origin{Host: "h", Name: "n"}

func some(lines ...string) (out []sink.Record) {
	for _, l := range lines {
		out = append(out, sink.Record{Origin: origin, Line: []byte(l)})
	}
	return out
}

func TestAnswersCountInAnyOrderAndMoreThanAWindowIsSent(t *testing.T) {
	t.Parallel()
	r := listen(t)
	r.shuffle = true
	s := New(r.ln.Addr().String(), nil)
	defer s.Close()
	lines := make([]string, 3*window)
	for i := range lines {
		lines[i] = fmt.Sprint("line ", i)
	}
	got, err := s.Deliver(t.Context(), some(lines...), nil)
	if err != nil || got.Acked != len(lines) {
		t.Fatalf("%+v, %v", got, err)
	}
	msgs := r.received()
	for i, l := range lines {
		if want := `<14>1 1970-01-01T00:00:00.000000Z h n - file [fairlead@32473 name="n"] ` + l; msgs[i] != want {
			t.Fatalf("got %q, want %q", msgs[i], want)
		}
	}
}

func TestOneRefusedMessageIsRejectedAndNoneTakenIsTheReceiversFault(t *testing.T) {
	t.Parallel()
	r := listen(t)
	r.refuse = func(m string) bool { return strings.HasSuffix(m, "bad") }
	s := New(r.ln.Addr().String(), nil)
	defer s.Close()
	got, err := s.Deliver(t.Context(), some("one", "bad", "two"), nil)
	if err != nil || got.Acked != 3 || len(got.Rejected) != 1 || got.Rejected[0].Index != 1 || !strings.Contains(got.Rejected[0].Reason, "500 not this one") {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = s.Deliver(t.Context(), some("bad", "bad"), nil)
	if err == nil || !strings.Contains(err.Error(), "500 not this one") || got.Acked+got.Unsure+len(got.Rejected) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = s.Deliver(t.Context(), some("three"), nil); err != nil || got.Acked != 1 {
		t.Errorf("the session did not go on: %+v, %v", got, err)
	}
}

func TestAMessageThatIsRefusedAloneIsRejectedInTheEndAndTheNextArrives(t *testing.T) {
	t.Parallel()
	r := listen(t)
	r.refuse = func(m string) bool { return strings.HasSuffix(m, "bad") }
	s := New(r.ln.Addr().String(), nil)
	defer s.Close()
	for range 2 { // what was taken in between begins the count anew
		for try := 1; try < lastWord; try++ {
			if got, err := s.Deliver(t.Context(), some("bad", "also bad"), nil); err == nil || got.Acked > 0 {
				t.Fatalf("try %d: %+v, %v", try, got, err)
			}
		}
		if got, err := s.Deliver(t.Context(), some("good"), nil); err != nil || got.Acked != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	records := some("bad", "also bad")
	var rejected []string
	for tries := 0; len(records) > 0; tries++ {
		got, err := s.Deliver(t.Context(), records, nil)
		if tries >= 2*lastWord || got.Acked > 1 || len(got.Rejected) != got.Acked || err == nil && got.Acked < len(records) {
			t.Fatalf("try %d: %+v, %v", tries, got, err)
		}
		for _, x := range got.Rejected {
			rejected = append(rejected, string(records[x.Index].Line)+": "+x.Reason)
		}
		records = records[got.Acked:]
	}
	if got, want := strings.Join(rejected, "; "), `bad: answer "500 not this one"; also bad: answer "500 not this one"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.stop()
	for range 2 * lastWord { // nobody has refused it
		if got, err := s.Deliver(t.Context(), some("bad"), nil); err == nil || got.Acked > 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

func TestAServerThatClosesLosesAndDoublesNothingThatItAnswered(t *testing.T) {
	t.Parallel()
	r := listen(t)
	r.goodbye = 5
	s := New(r.ln.Addr().String(), nil)
	defer s.Close()
	records := some("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
	for tries := 0; len(records) > 0; tries++ {
		got, err := s.Deliver(t.Context(), records, nil)
		if err == nil && got.Acked < len(records) || got.Acked > 5 || tries > 5 {
			t.Fatalf("%+v, %v", got, err)
		}
		records = records[got.Acked:]
	}
	var have []string
	for _, m := range r.received() {
		have = append(have, m[strings.LastIndexByte(m, ' ')+1:])
	}
	if got := strings.Join(have, " "); got != "0 1 2 3 4 5 6 7 8 9 10 11" {
		t.Errorf("got %s", got)
	}
}

func TestAPeerThatTakesNoSyslogOrIsNoneIsNamed(t *testing.T) {
	t.Parallel()
	for rsp, want := range map[string]string{
		"500 no such thing":                       "no such thing",
		"200 OK\nrelp_version=9":                  `version "9"`,
		"200 OK\nrelp_version=0\ncommands=telnet": "no syslog",
	} {
		r := listen(t)
		r.rsp = rsp
		s := New(r.ln.Addr().String(), nil)
		if got, err := s.Deliver(t.Context(), some("x"), nil); err == nil || !strings.Contains(err.Error(), want) || got.Unsure > 0 {
			t.Errorf("%q gave %+v, %v", rsp, got, err)
		}
		_ = s.Close()
	}
}

func TestCommandNumbersBeginAgainAfterTheLast(t *testing.T) {
	t.Parallel()
	if following(lastNumber) != 1 || following(7) != 8 || distance(lastNumber, 1) != 1 || distance(5, 9) != 4 || distance(lastNumber-1, 2) != 3 {
		t.Error("numbers do not go round")
	}
}

func FuzzFrame(f *testing.F) {
	for _, seed := range []string{"1 rsp 6 200 OK\n", "0 serverclose 0\n", "0 serverclose 0 \n", "2 rsp 0\n", "1 rsp 999999999 x\n", "99999999999 rsp 1 x\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &session{in: bufio.NewReader(strings.NewReader(string(b)))}
		n, name, data, err := s.frame()
		if err == nil && (n < 0 || n > lastNumber || strings.Contains(name, " ") || len(data) > len(b)) {
			t.Errorf("%q gave %d, %q, %q", b, n, name, data)
		}
	})
}
