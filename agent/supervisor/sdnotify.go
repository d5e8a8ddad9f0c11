package supervisor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier speaks sd_notify(3) to the service manager. A nil Notifier is silent. It is safe for concurrent use.
type Notifier struct {
	watchdog time.Duration
	send     func(string) error
}

// NotifierFromEnv reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID by lookup (os.LookupEnv). It gives nil when
// nobody listens, and an error for a socket it cannot speak to; it sends nothing.
func NotifierFromEnv(lookup func(string) (string, bool)) (*Notifier, error) {
	path, ok := lookup("NOTIFY_SOCKET")
	if !ok || path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' { // '@' begins an abstract name, which package net understands alike
		return nil, fmt.Errorf("notify service manager: NOTIFY_SOCKET %q is neither a path nor an abstract socket", path)
	}
	addr := &net.UnixAddr{Name: path, Net: "unixgram"}
	n := &Notifier{send: func(message string) error { return sendDatagram(addr, message) }}

	usec, ok := lookup("WATCHDOG_USEC")
	pid, forPID := lookup("WATCHDOG_PID")
	if ok && (!forPID || pid == strconv.Itoa(os.Getpid())) {
		us, err := strconv.ParseUint(usec, 10, 53)
		if err != nil {
			return nil, fmt.Errorf("notify service manager: WATCHDOG_USEC: %w", err)
		}
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n, nil
}

func sendDatagram(addr *net.UnixAddr, message string) error {
	conn, err := net.DialUnix("unixgram", nil, addr)
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer conn.Close()
	// A manager that does not read must not hold the agent up.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}

// Send passes lines such as READY=1 on. It blocks for at most a second.
func (n *Notifier) Send(lines ...string) error {
	if n == nil {
		return nil
	}
	return n.send(strings.Join(lines, "\n"))
}

// WatchdogInterval is the time after which the manager takes silence for death; 0 when it does not watch.
func (n *Notifier) WatchdogInterval() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// monotonicUsec is the time that must go with RELOADING=1 for Type=notify-reload.
func monotonicUsec() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "MONOTONIC_USEC=0" // Linux has had this clock since 2.6; the manager then waits for its own timeout
	}
	return "MONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/1000, 10)
}
