// Package kafka is the sink that produces to a Kafka topic, with the franz-go client.
//
// A record's value is the line, its key is what names the stream (a container keeps its partition, and so its order), its
// headers are what is known of the origin. Every record waits for all in-sync replicas, and the client's idempotence keeps
// its own retries from doubling anything. What was under way when the receiver fell silent may be doubled, and is counted.
// It owns one client with its connections.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// Options are what the configuration may say.
type Options struct {
	Brokers []string // host:port of some of them; they name the others
	Topic   string
	TLS     *post.TLS // nil: none
	// Mechanism is one of Mechanisms, or empty for no authentication. PasswordFile is read with each new client.
	Mechanism    string
	User         string
	PasswordFile string
}

// Mechanisms are the ways to prove who we are.
var Mechanisms = []string{"plain", "scram-sha-256", "scram-sha-512"}

// Sink produces to one topic. See sink.Sink.
type Sink struct {
	opts    Options
	patient time.Duration
	client  *kgo.Client
	headers [3]sink.Cache[[]kgo.RecordHeader] // by decode.Std
	keys    sink.Cache[[]byte]
	out     []kgo.Record
	results []error
}

// New makes a sink; it touches nothing.
func New(o Options) *Sink { return &Sink{opts: o, patient: answerTime} }

// Class is Acknowledged: all in-sync replicas have the records.
func (s *Sink) Class() sink.Class { return sink.Acknowledged }

// Pace gathers lines into batches.
func (s *Sink) Pace() time.Duration { return 20 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

const (
	answerTime  = 60 * time.Second
	connectTime = 5 * time.Second
	retries     = 3
	// batchBytes, before compression, leaves room for a line of 1 MiB. What compresses to no less is over the usual limit
	// of a broker (message.max.bytes, 1,048,588 after compression), and is tried alone.
	batchBytes = 1<<20 + 64<<10
)

// Deliver produces the records and waits for all the answers.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if err := s.connect(ctx); err != nil {
		return sink.Receipt{}, err
	}
	limit, cancel := context.WithTimeoutCause(ctx, s.patient, errors.New("the brokers do not answer"))
	defer cancel()
	s.render(records)
	s.produce(limit, 0, len(records))
	for i, err := range s.results {
		if errors.Is(err, kerr.MessageTooLarge) && s.client != nil { // it may share that with a whole batch
			s.produce(limit, i, i+1)
		}
	}
	r, err := receipt(s.results)
	if err != nil {
		err = errors.Join(fmt.Errorf("produce to %s: %w", s.opts.Topic, err), context.Cause(limit), s.Close())
	}
	return r, err
}

// receipt counts what is settled from the first record on, and gives the reason why the next is not.
func receipt(results []error) (r sink.Receipt, err error) {
	for _, err = range results {
		if err != nil && !atFault(err) {
			break
		}
		if err != nil {
			r.Rejected = append(r.Rejected, sink.Rejection{Index: r.Acked, Reason: err.Error()})
		}
		err = nil
		r.Acked++
	}
	for i := r.Acked; i < len(results); i++ {
		var said *kerr.Error
		if !errors.As(results[i], &said) { // taken, or nobody knows
			r.Unsure = i + 1 - r.Acked
		}
	}
	return r, err
}

// atFault tells whether the broker will never take this record.
func atFault(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.InvalidTimestamp)
}

// render makes Kafka's records in the memory of an earlier batch.
func (s *Sink) render(records []sink.Record) {
	s.out = append(s.out[:0], make([]kgo.Record, len(records))...)
	s.results = append(s.results[:0], make([]error, len(records))...)
	for i := range records {
		r := &records[i]
		headers := s.headers[r.Std].Get(r.Origin, func(o *sink.Origin) []kgo.RecordHeader { return about(o, r.Std.String()) })
		for _, f := range r.Fields {
			headers = append(headers[:len(headers):len(headers)], kgo.RecordHeader{Key: "field." + f.Name, Value: []byte(f.Value)})
		}
		s.out[i] = kgo.Record{Key: s.keys.Get(r.Origin, key), Value: r.Line, Headers: headers, Timestamp: r.Time()}
	}
}

// produce sends the rendered records [from, to) and fills in their results.
func (s *Sink) produce(ctx context.Context, from, to int) {
	var answered sync.WaitGroup
	answered.Add(to - from)
	for i := from; i < to; i++ {
		s.client.Produce(ctx, &s.out[i], func(_ *kgo.Record, err error) {
			s.results[i] = err
			answered.Done()
		})
	}
	if err := s.client.Flush(ctx); err != nil {
		// The end of ctx reaches a record only with the next try to send it. Closing fails them all.
		_ = s.Close()
	}
	answered.Wait()
}

func (s *Sink) connect(ctx context.Context) error {
	if s.client != nil {
		return nil
	}
	options, err := s.options()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return fmt.Errorf("make kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return errors.Join(fmt.Errorf("connect to %s: %w", strings.Join(s.opts.Brokers, ","), err), context.Cause(ctx))
	}
	s.client = client
	return nil
}

func (s *Sink) options() ([]kgo.Opt, error) {
	o := []kgo.Opt{
		kgo.ClientID("fairlead"), kgo.SeedBrokers(s.opts.Brokers...), kgo.DefaultProduceTopic(s.opts.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(batchBytes), kgo.MaxBufferedRecords(1 << 14), kgo.ManualFlushing(),
		// An agent that stops, or whose brokers are silent, does not wait for them for ever.
		kgo.AllowIdempotentProduceCancellation(),
		// The caller repeats too, and tells people; the client tries for about two seconds.
		kgo.RecordRetries(retries), kgo.RetryBackoffFn(func(try int) time.Duration { return 100 * time.Millisecond << min(try, retries) }),
		kgo.DialTimeout(connectTime),
	}
	if s.opts.TLS != nil {
		conf, err := s.opts.TLS.Config()
		if err != nil {
			return nil, err
		}
		o = append(o, kgo.DialTLSConfig(conf))
	}
	if s.opts.Mechanism == "" {
		return o, nil
	}
	password, err := os.ReadFile(s.opts.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	m, err := mechanism(s.opts.Mechanism, s.opts.User, strings.TrimSpace(string(password)))
	return append(o, kgo.SASL(m)), err
}

func mechanism(name, user, password string) (sasl.Mechanism, error) {
	switch name {
	case "plain":
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("authentication %q is unknown", name)
}

// key names the stream: the container's id, or host and path of a file.
func key(o *sink.Origin) []byte {
	switch {
	case o.Path == "":
		return []byte(o.ID)
	case o.ID != "":
		return []byte(o.ID + ":" + o.Path)
	}
	return []byte(o.Host + ":" + o.Path)
}

func about(o *sink.Origin, std string) (out []kgo.RecordHeader) {
	for _, f := range o.Fields() {
		out = append(out, kgo.RecordHeader{Key: f.Name, Value: []byte(f.Value)})
	}
	if std != "" {
		out = append(out, kgo.RecordHeader{Key: "stream", Value: []byte(std)})
	}
	for _, t := range o.Tags() {
		out = append(out, kgo.RecordHeader{Key: "label." + t.Name, Value: []byte(t.Value)})
	}
	return out
}

// Close gives up the client. Nothing is under way in it between two calls of Deliver.
func (s *Sink) Close() error {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
	return nil
}
