// Program guest runs in a test machine and does what the story on the host asks for over the serial port, or with the
// argument "-" over its standard input and output.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/test/vagrant/line"
)

func main() {
	// The wire never ends well: it ends with the machine.
	fmt.Fprintln(os.Stderr, "guest:", run())
	os.Exit(1)
}

func run() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	port, err := wire()
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
		"CI": "true", // a test whose tool is missing has to fail here
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return line.Serve(port, strings.TrimSpace(string(boot)))
}

func wire() (io.ReadWriter, error) {
	if len(os.Args) > 1 && os.Args[1] == "-" {
		return struct {
			io.Reader
			io.Writer
		}{os.Stdin, os.Stdout}, nil
	}
	return open()
}

// open waits for the port, which appears when its driver is loaded.
func open() (*os.File, error) {
	for {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			name, err := os.ReadFile(path)
			if err != nil || strings.TrimSpace(string(name)) != line.Port {
				continue
			}
			// Blocking: without the poller a read waits in the driver, and there is nothing else to wait for.
			fd, err := syscall.Open("/dev/"+filepath.Base(filepath.Dir(path)), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("open serial port: %w", err)
			}
			return os.NewFile(uintptr(fd), "port"), nil
		}
		time.Sleep(50 * time.Millisecond) // sysfs tells nobody that a port has come
	}
}
