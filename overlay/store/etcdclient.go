package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/stats"
)

// EtcdConfig is the section "overlay.etcd" of the configuration file.
type EtcdConfig struct {
	Endpoints    []string      `yaml:"endpoints" doc:"http:// or https:// host:port of etcd's members; several for when one is away"`
	Prefix       string        `yaml:"prefix" doc:"where in etcd; hosts with the same prefix are one cluster"`
	User         string        `yaml:"user" doc:"of etcd's own users; empty: none"`
	PasswordFile string        `yaml:"password_file" doc:"file with the user's password"`
	CAFile       string        `yaml:"ca_file" doc:"https: whom to trust; default: the system's authorities"`
	CertFile     string        `yaml:"cert_file" doc:"https: this host's certificate"`
	KeyFile      string        `yaml:"key_file" doc:"https: its key"`
	Session      time.Duration `yaml:"session" doc:"a host that was not heard of for so long is shown as silent; what it has stays"`
	Grace        time.Duration `yaml:"grace" doc:"after a restored snapshot no new block is leased for so long, so that hosts can say what they hold"`
}

// DefaultEtcdConfig has no endpoint.
func DefaultEtcdConfig() EtcdConfig {
	return EtcdConfig{Prefix: "/fairlead/v1/default", Session: 15 * time.Second, Grace: 15 * time.Second}
}

// Validate names every problem with its key.
func (c EtcdConfig) Validate(problem func(key, format string, args ...any)) {
	if len(c.Endpoints) == 0 {
		problem("endpoints", "expected one or more of etcd's members, such as http://192.0.2.1:2379")
	}
	for i, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			problem(fmt.Sprintf("endpoints[%d]", i), "expected http://host:port or https://host:port, found %q", e)
		}
	}
	if !strings.HasPrefix(c.Prefix, "/") || strings.HasSuffix(c.Prefix, "/") {
		problem("prefix", "expected a path such as /fairlead/v1/default, without a slash at its end, found %q", c.Prefix)
	}
	if (c.User == "") != (c.PasswordFile == "") {
		problem("user", "user and password_file belong together")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		problem("cert_file", "cert_file and key_file belong together")
	}
	for key, d := range map[string]time.Duration{"session": c.Session, "grace": c.Grace} {
		// Below two seconds etcd makes it two: one and a half election timeouts.
		if d < 2*time.Second || d > 10*time.Minute || d%time.Second != 0 {
			problem(key, "expected whole seconds between 2s and 10m, found %s", d)
		}
	}
}

// requestTimeout is how long etcd may take to answer.
const requestTimeout = 5 * time.Second

// pageSize is the number of records of one read.
const pageSize = 1000

// dial gives the client, made at the first call: files that it needs are read then.
func (e *Etcd) dial() (*clientv3.Client, error) {
	e.clientMu.Lock()
	defer e.clientMu.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	cfg := clientv3.Config{
		Endpoints: e.cfg.Endpoints, Username: e.cfg.User, Logger: zap.NewNop(),
		DialTimeout: requestTimeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{
			grpc.WithStatsHandler(connections{e.broken}),
			// Two minutes by default, which would be felt after an outage.
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
		},
	}
	if e.cfg.PasswordFile != "" {
		b, err := os.ReadFile(e.cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password for etcd: %w", err)
		}
		cfg.Password = strings.TrimRight(string(b), "\r\n")
	}
	var err error
	if cfg.TLS, err = e.cfg.tls(); err != nil {
		return nil, err
	}
	if e.client, err = clientv3.New(cfg); err != nil {
		return nil, hint("connect to etcd", err)
	}
	return e.client, nil
}

// hangUp closes the client; the next dial makes another.
func (e *Etcd) hangUp() {
	e.clientMu.Lock()
	defer e.clientMu.Unlock()
	if e.client != nil {
		_ = e.client.Close() // what was on its way has failed already
		e.client = nil
	}
}

func (c EtcdConfig) tls() (*tls.Config, error) {
	if !strings.HasPrefix(c.Endpoints[0], "https:") {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities for etcd: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities for etcd: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		// Read at each connection: certificates are renewed while we run.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &pair, err
		}
	}
	return t, nil
}

// connections tells when one was lost. The client resumes watches by itself, and after a restored snapshot it would not
// notice what it has missed.
type connections struct{ broken chan<- struct{} }

func (connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ended := s.(*stats.ConnEnd); ended {
		poke(c.broken)
	}
}

// hint adds what helps to errors that etcd gives without it.
func hint(what string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("%s: %w (overlay.etcd.user)", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// grant begins a session and keeps it alive until ctx ends.
func (e *Etcd) grant(ctx context.Context, c *clientv3.Client, patience time.Duration) (clientv3.LeaseID, <-chan *clientv3.LeaseKeepAliveResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e.requests.Inc()
	l, err := c.Grant(bounded, int64(e.cfg.Session/time.Second))
	if err != nil {
		return 0, nil, hint("begin session with etcd", err)
	}
	alive, err := c.KeepAlive(ctx, l.ID)
	if err != nil {
		return 0, nil, hint("keep session with etcd", err)
	}
	return l.ID, alive, nil
}

// revoke ends a session, so that peers see at once that this agent has stopped. Without an answer it ends by itself.
func (e *Etcd) revoke(c *clientv3.Client, session clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	e.requests.Inc()
	if _, err := c.Revoke(ctx, session); err != nil {
		e.deps.Log.Debug("session with etcd was not revoked", "err", err)
	}
}

// read gives all records, page by page, as of one revision. pass hears of those that are not understood.
func (e *Etcd) read(ctx context.Context, c *clientv3.Client, pass func(key string, rev int64, err error)) (*view, error) {
	e.resyncs.Inc()
	var v *view
	from, end := e.cfg.Prefix, clientv3.GetPrefixRangeEnd(e.cfg.Prefix)
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
		if v != nil {
			opts = append(opts, clientv3.WithRev(v.rev))
		}
		bounded, cancel := context.WithTimeout(ctx, requestTimeout)
		e.requests.Inc()
		r, err := c.Get(bounded, from, opts...)
		cancel()
		if err != nil {
			return nil, hint("read from etcd", err)
		}
		if v == nil {
			v = newView(clusterID(r.Header.ClusterId), r.Header.Revision)
		}
		for _, kv := range r.Kvs {
			key := string(kv.Key)[len(e.cfg.Prefix):]
			if err := v.put(key, kv.Value, kv.CreateRevision, kv.ModRevision); err != nil {
				pass(key, kv.ModRevision, err)
			}
		}
		if !r.More || len(r.Kvs) == 0 {
			return v, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// commit carries out a transaction.
func (e *Etcd) commit(ctx context.Context, c *clientv3.Client, t *Txn, session clientv3.LeaseID) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var conds []clientv3.Cmp
	for _, cond := range t.If {
		key := e.cfg.Prefix + cond.Key
		switch {
		case cond.None:
			conds = append(conds, clientv3.Compare(clientv3.CreateRevision(key), "=", 0).WithPrefix())
		case cond.Since > 0:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "<", cond.Since+1).WithPrefix())
		default:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(key), "=", cond.Mod))
			if cond.Value != nil {
				conds = append(conds, clientv3.Compare(clientv3.Value(key), "=", string(cond.Value)))
			}
		}
	}
	var ops []clientv3.Op
	for _, w := range t.Then {
		key := e.cfg.Prefix + w.Key
		switch {
		case w.Value == nil:
			ops = append(ops, clientv3.OpDelete(key))
		case w.Life == InSession:
			ops = append(ops, clientv3.OpPut(key, string(w.Value), clientv3.WithLease(session)))
		case w.Life == InGrace:
			e.requests.Inc()
			l, err := c.Grant(ctx, int64(e.cfg.Grace/time.Second))
			if err != nil {
				return nil, hint("begin grace period in etcd", err)
			}
			ops = append(ops, clientv3.OpPut(key, string(w.Value), clientv3.WithLease(l.ID)))
		default:
			ops = append(ops, clientv3.OpPut(key, string(w.Value)))
		}
	}
	e.requests.Inc()
	r, err := c.Txn(ctx).If(conds...).Then(ops...).Commit()
	if err != nil {
		return nil, hint(t.Why, err)
	}
	return r, nil
}
