package logship

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/elastic"
	"github.com/fairlead-dev/fairlead/logship/sink/file"
	"github.com/fairlead-dev/fairlead/logship/sink/fluent"
	"github.com/fairlead-dev/fairlead/logship/sink/kafka"
	"github.com/fairlead-dev/fairlead/logship/sink/loki"
	"github.com/fairlead-dev/fairlead/logship/sink/ndjson"
	"github.com/fairlead-dev/fairlead/logship/sink/otlp"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/relp"
	"github.com/fairlead-dev/fairlead/logship/sink/stdout"
	"github.com/fairlead-dev/fairlead/logship/sink/syslog"
)

// SinkConfig is one sink.
type SinkConfig struct {
	Name    string `yaml:"name" doc:"positions are kept under it: another name is another sink"`
	Type    string `yaml:"type" doc:"syslog, relp, loki, otlp, elastic, fluent, kafka, ndjson, file or stdout"`
	Address string `yaml:"address" doc:"syslog: tcp://, tls:// or udp://host:port; relp, fluent: tcp:// or tls://host:port; kafka: tcp:// or tls://host:port,host:port"`
	URL     string `yaml:"url" doc:"loki, otlp, elastic, ndjson: http(s)://host:port, with the path where it is not the usual one"`
	Path    string `yaml:"path" doc:"file: absolute"`
	// MaxBytes and Keep rotate a file sink.
	MaxBytes uint64 `yaml:"max_bytes" doc:"file: at this size it becomes PATH.1; 0: never"`
	Keep     uint32 `yaml:"keep" doc:"file: how many of PATH.1, PATH.2 ... stay; at least 1 with max_bytes"`
	Index    string `yaml:"index" doc:"elastic: index or data stream; default fairlead"`
	Tag      string `yaml:"tag" doc:"fluent: tag of all records; default fairlead"`
	Topic    string `yaml:"topic" doc:"kafka: topic of all records; default fairlead"`
	SASL     string `yaml:"sasl" doc:"kafka: plain, scram-sha-256 or scram-sha-512, with user and password_file; empty: no authentication"`
	// Headers go with every request, such as X-Scope-OrgID for Loki.
	Headers      map[string]string `yaml:"headers" doc:"sinks with a url: headers of every request, such as X-Scope-OrgID"`
	User         string            `yaml:"user" doc:"sinks with a url: name for basic authentication; kafka: name for sasl"`
	PasswordFile string            `yaml:"password_file" doc:"sinks with a user: file with the password"`
	TokenFile    string            `yaml:"token_file" doc:"sinks with a url: file with a bearer token"`
	TLS          post.TLS          `yaml:"tls" doc:"https:// and tls://: whom to trust and who we are"`
	// From is where a sink that was just added begins in streams that are known already: "now", where the furthest of
	// the other sinks stands, or "start", with all that still lies there. New streams always begin at their start, and
	// so does everything on the first start of an agent.
	From string `yaml:"from" doc:"where a sink that was just added begins in known streams: now (empty) or start"`
}

// posts gives the usual path of each type with a url.
var posts = map[string]string{"loki": "/loki/api/v1/push", "otlp": "/v1/logs", "elastic": "/_bulk", "ndjson": "/"}

// open makes the sink; it touches nothing.
func (l *Logship) open(c SinkConfig) (sink.Sink, error) {
	log := l.deps.Log.With("sink", c.Name)
	scheme, addr, _ := strings.Cut(c.Address, "://")
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "file":
		return file.NewRotated(c.Path, int64(c.MaxBytes), int(c.Keep), log), nil
	case "stdout":
		return stdout.New(os.Stdout), nil
	case "syslog":
		switch scheme {
		case "udp":
			return syslog.NewUDP(addr), nil
		case "tls":
			return syslog.NewTLS(addr, c.TLS, log), nil
		}
		return syslog.New(addr, log), nil
	case "relp":
		return relp.New(addr, c.secure(scheme)), nil
	case "fluent":
		return fluent.New(addr, c.secure(scheme), or(c.Tag, "fairlead")), nil
	case "kafka":
		return kafka.New(kafka.Options{Brokers: strings.Split(addr, ","), Topic: or(c.Topic, "fairlead"), TLS: c.secure(scheme),
			Mechanism: c.SASL, User: c.User, PasswordFile: c.PasswordFile}), nil
	case "loki":
		return loki.New(o), nil
	case "otlp":
		return otlp.New(o), nil
	case "elastic":
		return elastic.New(o, or(c.Index, "fairlead")), nil
	case "ndjson":
		return ndjson.New(o), nil
	}
	return nil, fmt.Errorf("sink %s: unknown type %q", c.Name, c.Type)
}

// secure gives how to secure a connection, nil for one in the clear.
func (c *SinkConfig) secure(scheme string) *post.TLS {
	if scheme == "tls" {
		return &c.TLS
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// options gives what sinks with a url need.
func (c SinkConfig) options() (post.Options, error) {
	o := post.Options{Headers: c.Headers, TLS: c.TLS, BasicUser: c.User, PasswordFile: c.PasswordFile, TokenFile: c.TokenFile}
	usual, ok := posts[c.Type]
	if !ok {
		return o, nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return o, fmt.Errorf("url %q: expected http(s)://host:port", c.URL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = usual
	}
	o.URL = u.String()
	return o, nil
}

// schemes gives what may stand in address, by type.
var schemes = map[string][]string{"syslog": {"tcp", "tls", "udp"}, "relp": {"tcp", "tls"}, "fluent": {"tcp", "tls"}, "kafka": {"tcp", "tls"}}

// validateSinks hands every problem to bad with its key.
func validateSinks(c Config, bad func(key, got, expected string)) {
	names, paths := map[string]bool{}, map[string]bool{}
	for i, s := range c.Sinks {
		key := fmt.Sprintf("sinks[%d].", i)
		if !sinkName(s.Name) || names[s.Name] {
			bad(key+"name", s.Name, "a name of its own from letters, digits, - and _")
		}
		names[s.Name] = true
		known := s.Type == "file" || s.Type == "stdout" || posts[s.Type] != "" || schemes[s.Type] != nil
		if !known {
			bad(key+"type", s.Type, "syslog, relp, loki, otlp, elastic, fluent, kafka, ndjson, file or stdout")
		}
		if allowed := schemes[s.Type]; allowed != nil {
			if err := s.address(allowed); err != nil {
				bad(key+"address", s.Address, strings.Join(allowed, "://host:port, ")+"://host:port")
			}
		} else if s.Address != "" && known {
			bad(key+"address", s.Address, "nothing: a "+s.Type+" sink has none")
		}
		if _, err := s.options(); err != nil {
			bad(key+"url", s.URL, "http://host:port or https://host:port")
		} else if s.URL != "" && known && posts[s.Type] == "" {
			bad(key+"url", s.URL, "nothing: a "+s.Type+" sink has none")
		}
		if s.Type == "file" {
			if !filepath.IsAbs(s.Path) || paths[filepath.Clean(s.Path)] {
				bad(key+"path", s.Path, "an absolute path that no other sink writes")
			}
			paths[filepath.Clean(s.Path)] = true
			for j, f := range c.Files {
				if ok, _ := path.Match(f.Path, s.Path); ok {
					bad(key+"path", s.Path, fmt.Sprintf("a path that files[%d] does not follow: its lines would feed themselves", j))
				}
			}
			if s.MaxBytes > 0 && (s.Keep < 1 || s.Keep > 1000) {
				bad(key+"keep", strconv.Itoa(int(s.Keep)), "1 to 1000")
			}
		} else if s.Path != "" && known {
			bad(key+"path", s.Path, "nothing: a "+s.Type+" sink has none")
		}
		if s.User != "" && s.PasswordFile == "" {
			bad(key+"password_file", "", "a file, because there is a user")
		}
		s.validateKafka(key, bad)
		if s.From != "" && s.From != "now" && s.From != "start" {
			bad(key+"from", s.From, "now or start")
		}
	}
}

func (c SinkConfig) validateKafka(key string, bad func(key, got, expected string)) {
	if c.Type != "kafka" {
		if c.Topic != "" && c.Type != "" {
			bad(key+"topic", c.Topic, "nothing: a "+c.Type+" sink has none")
		}
		if c.SASL != "" && c.Type != "" {
			bad(key+"sasl", c.SASL, "nothing: a "+c.Type+" sink has none")
		}
		return
	}
	if strings.Trim(c.Topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || len(c.Topic) > 249 || c.Topic == "." || c.Topic == ".." {
		bad(key+"topic", c.Topic, "at most 249 letters, digits, ., _ and -")
	}
	if c.SASL != "" && !slices.Contains(kafka.Mechanisms, c.SASL) {
		bad(key+"sasl", c.SASL, strings.Join(kafka.Mechanisms, ", ")+" or nothing")
	}
	if (c.SASL == "") != (c.User == "") {
		bad(key+"user", c.User, "a name with sasl, and none without")
	}
}

func sinkName(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// address tells whether Address is one of the schemes with a host and a port, or several of those for kafka.
func (c SinkConfig) address(allowed []string) error {
	scheme, rest, _ := strings.Cut(c.Address, "://")
	if !slices.Contains(allowed, scheme) {
		return errors.New("not an address")
	}
	peers := []string{rest}
	if c.Type == "kafka" {
		peers = strings.Split(rest, ",")
	}
	for _, peer := range peers {
		host, port, err := net.SplitHostPort(peer)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
			return errors.New("not an address")
		}
	}
	return nil
}
