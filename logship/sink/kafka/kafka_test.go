package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// broker is a simulated cluster (kfake) with a reader of its own.
type broker struct {
	t       *testing.T
	cluster *kfake.Cluster
	mu      sync.Mutex
	change  *sync.Cond
	mode    sinktest.Mode
	down    bool
	ended   bool
	dial    *tls.Config // of the reader
	reader  *kgo.Client
	got     []*kgo.Record
}

const partitions = 3

func start(t *testing.T, opts ...kfake.Opt) *broker {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, "logs")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, cluster: c}
	b.change = sync.NewCond(&b.mu)
	t.Cleanup(func() {
		b.set(func() { b.ended = true })
		c.Close()
	})
	c.Control(b.control)
	return b
}

func (b *broker) set(f func()) {
	b.mu.Lock()
	f()
	b.mu.Unlock()
	b.change.Broadcast()
}

func (b *broker) control(req kmsg.Request) (kmsg.Response, error, bool) {
	b.cluster.KeepControl()
	b.mu.Lock()
	mode, down := b.mode, b.down
	b.mu.Unlock()
	_, produces := req.(*kmsg.ProduceRequest)
	switch {
	case down, produces && mode == sinktest.Rude:
		return nil, errors.New("the connection ends"), true
	case produces && mode == sinktest.Stuck:
		b.cluster.SleepControl(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			for b.mode == sinktest.Stuck && !b.ended {
				b.change.Wait()
			}
		})
	}
	return nil, nil, false
}

// records reads all that the topic has.
func (b *broker) records() []*kgo.Record {
	if b.reader == nil {
		var err error
		if b.reader, err = kgo.NewClient(kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.ConsumeTopics("logs"), kgo.DialTLSConfig(b.dial), kgo.FetchMaxWait(50*time.Millisecond)); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(b.reader.Close)
	}
	var want int64
	for p := range int32(partitions) {
		want += b.cluster.PartitionInfo("logs", p).HighWatermark
	}
	for int64(len(b.got)) < want {
		b.got = append(b.got, b.reader.PollFetches(b.t.Context()).Records()...)
	}
	return b.got
}

func (b *broker) lines() (out []string) {
	for _, r := range b.records() {
		out = append(out, string(r.Value))
	}
	return out
}

func (b *broker) sink() *Sink {
	return New(Options{Brokers: b.cluster.ListenAddrs(), Topic: "logs"})
}

func TestKafkaKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		b := start(t)
		var s *Sink
		return sinktest.Harness{
			New:      func() sink.Sink { s = b.sink(); return s },
			Received: b.lines,
			Down:     func() { b.set(func() { b.down = true }) },
			Up:       func() { b.set(func() { b.down = false }) },
			Set: func(m sinktest.Mode) {
				b.set(func() { b.mode = m })
				if s != nil { // a broker that never answers is not worth a minute here
					s.patient = map[bool]time.Duration{true: 200 * time.Millisecond, false: answerTime}[m == sinktest.Rude]
				}
			},
		}
	})
}

func TestARecordHasItsStreamAsKeyAndItsOriginAsHeaders(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.sink()
	defer s.Close()
	o := &sink.Origin{Host: "web1", Runtime: "docker", ID: "c0ffee", Labels: map[string]string{"tier": "front"}}
	f := &sink.Origin{Host: "web1", Path: "/var/log/a"}
	line := []byte("\xff\x00 any bytes")
	r, err := s.Deliver(t.Context(), []sink.Record{
		{Origin: o, Std: decode.Stderr, At: 1_795_000_000_123_456_789, Line: line, Fields: []sink.Field{{Name: "level", Value: "warn"}}},
		{Origin: o, Std: decode.Stderr, Line: []byte("plain")}, {Origin: f, Line: []byte("file")}}, nil)
	if err != nil || r.Acked != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	got := map[string]string{}
	for _, r := range b.records() {
		var h []string
		for _, x := range r.Headers {
			h = append(h, x.Key+"="+string(x.Value))
		}
		got[string(r.Value)] = fmt.Sprint(string(r.Key), " ", r.Timestamp.UnixMilli(), " ", strings.Join(h, " "))
	}
	for line, want := range map[string]string{
		string(line): "c0ffee 1795000000123 host=web1 runtime=docker id=c0ffee stream=stderr label.tier=front field.level=warn",
		"plain":      "c0ffee 0 host=web1 runtime=docker id=c0ffee stream=stderr label.tier=front",
		"file":       "web1:/var/log/a 0 host=web1 path=/var/log/a",
	} {
		if got[line] != want {
			t.Errorf("%q\n got %s\nwant %s", line, got[line], want)
		}
	}
}

func TestALineThatNoBrokerTakesIsRejectedAndTheOthersArrive(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.sink()
	defer s.Close()
	noise := func(n int) []byte {
		r, out := rand.NewChaCha8([32]byte{1}), make([]byte, n)
		_, _ = r.Read(out)
		return out
	}
	o := &sink.Origin{Host: "h", ID: "c"}
	// Two of them in one batch are too much for the broker; each alone is not.
	r, err := s.Deliver(t.Context(), []sink.Record{{Origin: o, Line: []byte("a")}, {Origin: o, Line: noise(540_000)}, {Origin: o, Line: noise(540_000)},
		{Origin: o, Line: noise(2 << 20)}, {Origin: o, Line: []byte("b")}}, nil)
	if err != nil || r.Acked != 5 || len(r.Rejected) != 1 || r.Rejected[0].Index != 3 || !strings.Contains(r.Rejected[0].Reason, "MESSAGE_TOO_LARGE") {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := len(b.lines()); n != 4 {
		t.Errorf("%d records arrived, want 4", n)
	}
}

func TestAReceiptCoversWhatComesBeforeTheFirstGap(t *testing.T) {
	t.Parallel()
	r, err := receipt([]error{nil, kerr.InvalidRecord, kerr.NotEnoughReplicas, nil, kerr.NotEnoughReplicas})
	if !errors.Is(err, kerr.NotEnoughReplicas) || r.Acked != 2 || len(r.Rejected) != 1 || r.Unsure != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = receipt([]error{kerr.NotEnoughReplicas, kerr.NotEnoughReplicas}); err == nil || r.Unsure != 0 {
		t.Errorf("the brokers said no to all of them: %+v, %v", r, err)
	}
	if r, err = receipt([]error{nil, kerr.MessageTooLarge}); err != nil || r.Acked != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAnUnknownTopicIsNamed(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.sink()
	s.opts.Topic = "elsewhere"
	defer s.Close()
	r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{}, Line: []byte("x")}}, nil)
	if err == nil || !strings.Contains(err.Error(), "produce to elsewhere") || !strings.Contains(err.Error(), "UNKNOWN_TOPIC_OR_PARTITION") || r.Unsure > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestOverTLSTheBrokerMustBeTheOneThatIsTrusted(t *testing.T) {
	t.Parallel()
	cert, key := sinktest.Certificate(t)
	other, _ := sinktest.Certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	b.dial = &tls.Config{InsecureSkipVerify: true}
	for name, test := range map[string]struct {
		tls  *post.TLS
		want string // in the error; empty: delivered
	}{
		"trusted":      {&post.TLS{CA: cert}, ""},
		"another":      {&post.TLS{CA: other}, "certificate"},
		"in the clear": {nil, "connect to"},
	} {
		s := b.sink()
		s.opts.TLS = test.tls
		r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{}, Line: []byte(name)}}, nil)
		if good := test.want == ""; (r.Acked == 1) != good || (err == nil) != good || err != nil && !strings.Contains(err.Error(), test.want) || r.Unsure > 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		_ = s.Close()
	}
	if got := b.lines(); len(got) != 1 || got[0] != "trusted" {
		t.Errorf("arrived: %q", got)
	}
}

func write(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, strings.TrimSpace(text))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAPasswordIsAskedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, m := range Mechanisms {
		b := start(t, kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(m), "us", "secret"))
		for password, good := range map[string]bool{"secret\n": true, "guess": false} {
			s := b.sink()
			s.opts.Mechanism, s.opts.User, s.opts.PasswordFile = m, "us", write(t, dir, password)
			r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{}, Line: []byte("x")}}, nil)
			if (err == nil) != good || (r.Acked == 1) != good {
				t.Errorf("%s with %q: %+v, %v", m, password, r, err)
			}
			_ = s.Close()
		}
	}
}
