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

// SyslogNGDaemon is a running syslog-ng that takes RFC 5424 and writes each message, as it has understood it, to a file.
type SyslogNGDaemon struct {
	*Process
	Address  string // host:port it listens on
	Messages string // file with one message a line: <PRI>1 TIME HOST APP PROCID MSGID [SD] MSG
	udp      bool
}

// SyslogNGInput is how a syslog-ng takes messages: over tcp, tls or udp.
type SyslogNGInput struct {
	Transport string
	Cert, Key string // files, for tls
}

// SyslogNG starts the syslog-ng whose packages were unpacked below root, and returns when it listens on opts.Address.
func SyslogNG(ctx context.Context, opts Options, root string, kind SyslogNGInput) (*SyslogNGDaemon, error) {
	d := &SyslogNGDaemon{Address: opts.Address, Messages: filepath.Join(opts.Dir, "messages"), udp: kind.Transport == "udp"}
	host, port, err := net.SplitHostPort(opts.Address)
	if err != nil {
		return nil, fmt.Errorf("configure syslog-ng: %w", err)
	}
	more := ""
	if kind.Transport == "tls" {
		more = fmt.Sprintf("tls(cert-file(%q) key-file(%q) peer-verify(optional-untrusted))", kind.Cert, kind.Key)
	}
	config := filepath.Join(opts.Dir, "syslog-ng.conf")
	// With flow-control it reads no more from a connection than it can write.
	text := fmt.Sprintf(`@version: 3.38
options { keep-hostname(yes); use-dns(no); frac-digits(6); stats-freq(0); time-zone("UTC"); flush-lines(1); log-msg-size(2097152); };
source all { syslog(ip(%q) port(%s) transport(%q) %s); };
destination file { file(%q template("<$PRI>1 $ISODATE $HOST $PROGRAM ${PID:--} ${MSGID:--} ${SDATA:--} $MSG\n")); };
log { source(all); destination(file); flags(flow-control); };
`, host, port, kind.Transport, more, d.Messages)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure syslog-ng: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/syslog-ng/[0-9]*"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no modules below %s", root)
	}
	if err != nil {
		return nil, fmt.Errorf("start syslog-ng: %w", err)
	}
	libraries := []string{filepath.Join(root, "usr/lib/syslog-ng")}
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		more, _ := filepath.Glob(filepath.Join(root, pattern))
		libraries = append(libraries, more...)
	}
	in := func(name string) string { return filepath.Join(opts.Dir, name) }
	if d.Process, err = start(opts, "syslog-ng", "env", "LD_LIBRARY_PATH="+strings.Join(libraries, ":"), filepath.Join(root, "usr/sbin/syslog-ng"),
		"--foreground", "--no-caps", "--cfgfile", config, "--module-path", found[0], "--persist-file", in("persist"), "--pidfile", in("pid"), "--control", in("control")); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.listens); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

func (d *SyslogNGDaemon) listens(context.Context) error {
	if d.udp {
		return d.boundUDP(d.Address)
	}
	return d.listensOn(d.Address)
}

// Start brings syslog-ng back after Stop, on the same port and with the same file.
func (d *SyslogNGDaemon) Start(ctx context.Context) error {
	if err := d.launch(); err != nil {
		return fmt.Errorf("start syslog-ng again: %w", err)
	}
	return d.await(ctx, d.listens)
}
