package state

import (
	"os"
	"syscall"
)

func fdatasync(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) { fault = syscall.Fdatasync(int(fd)) })
	if err != nil {
		return err
	}
	return fault
}
