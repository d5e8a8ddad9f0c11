package daemons

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// RsyslogDaemon is a running rsyslogd that takes RFC 5424 over TCP and writes each message to a file.
type RsyslogDaemon struct {
	*Process
	Address  string // host:port it listens on, in the network namespace it runs in
	Kind     RsyslogInput
	Messages string // file with one message a line: <PRI>1 TIME HOST APP PROCID MSGID [SD] MSG
}

// RsyslogInput is how an rsyslogd takes messages.
type RsyslogInput struct {
	RELP bool   // imrelp; otherwise imtcp
	Cert string // file with the certificate to show over TLS, and Key its key; empty: no TLS
	Key  string
}

// input renders the configuration of one input.
func (i RsyslogInput) input(host, port, portFile string) string {
	switch {
	case i.RELP && i.Cert != "":
		return fmt.Sprintf(`module(load="imrelp" tls.tlslib="openssl")
input(type="imrelp" address=%q port=%q ruleset="all" maxDataSize="2m" tls="on" tls.cacert=%q tls.mycert=%q tls.myprivkey=%q)
`, host, port, i.Cert, i.Cert, i.Key)
	case i.RELP:
		return fmt.Sprintf(`module(load="imrelp")
input(type="imrelp" address=%q port=%q ruleset="all" maxDataSize="2m")
`, host, port)
	case i.Cert != "":
		return fmt.Sprintf(`global(defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address=%q port=%q listenPortFileName=%q ruleset="all")
`, i.Cert, i.Cert, i.Key, host, port, portFile)
	}
	return fmt.Sprintf(`module(load="imtcp")
input(type="imtcp" address=%q port=%q listenPortFileName=%q ruleset="all")
`, host, port, portFile)
}

// Rsyslog starts rsyslogd and returns when it listens on opts.Address, by default a free port of 127.0.0.1.
func Rsyslog(ctx context.Context, opts Options) (*RsyslogDaemon, error) {
	return RsyslogWith(ctx, opts, RsyslogInput{})
}

// RsyslogWith is Rsyslog with another input. imrelp chooses no port itself, so opts.Address must have one for RELP.
func RsyslogWith(ctx context.Context, opts Options, kind RsyslogInput) (*RsyslogDaemon, error) {
	d := &RsyslogDaemon{Kind: kind, Address: or(opts.Address, "127.0.0.1:0"), Messages: filepath.Join(opts.Dir, "messages")}
	config, err := d.configure(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("configure rsyslogd: %w", err)
	}
	pid := filepath.Join(opts.Dir, "rsyslogd.pid")
	if d.Process, err = start(opts, "rsyslogd", "rsyslogd", "-n", "-f", config, "-i", pid); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.listens); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

func (d *RsyslogDaemon) configure(dir string) (path string, err error) {
	host, port, err := net.SplitHostPort(d.Address)
	if err != nil {
		return "", err
	}
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "rsyslog.conf")
	// rsyslogd cuts messages at 8 KiB and escapes control characters unless it is told otherwise.
	return path, os.WriteFile(path, fmt.Appendf(nil, `global(workDirectory=%q maxMessageSize="2m" parser.escapeControlCharactersOnReceive="off")
ruleset(name="all") {
  action(type="omfile" file=%q template="RSYSLOG_SyslogProtocol23Format")
}
%s`, work, d.Messages, d.Kind.input(host, port, d.portFile())), 0o644)
}

func (d *RsyslogDaemon) portFile() string { return filepath.Join(filepath.Dir(d.Messages), "port") }

// listens is satisfied when the port is open, and completes Address with one that rsyslogd chose. Only a port that it
// chose is written to its port file.
func (d *RsyslogDaemon) listens(context.Context) error {
	host, port, err := net.SplitHostPort(d.Address)
	if err != nil {
		return err
	}
	if port == "0" {
		b, err := os.ReadFile(d.portFile())
		if err != nil {
			return err
		}
		if port = strings.TrimSpace(string(b)); port == "" {
			return errors.New("no port yet")
		}
	}
	address := net.JoinHostPort(host, port)
	if err := d.listensOn(address); err != nil {
		return err
	}
	d.Address = address
	return nil
}

// Start brings rsyslogd back after Kill, on the same port and with the same file.
func (d *RsyslogDaemon) Start(ctx context.Context) error {
	_, err := d.configure(filepath.Dir(d.Messages))
	if err = errors.Join(err, removeFile(d.portFile()), removeFile(filepath.Join(filepath.Dir(d.Messages), "rsyslogd.pid"))); err != nil {
		return fmt.Errorf("start rsyslogd again: %w", err)
	}
	if err := d.launch(); err != nil {
		return fmt.Errorf("start rsyslogd again: %w", err)
	}
	return d.await(ctx, d.listens)
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
