// Package vagrant proves on whole machines what namespaces on one kernel cannot show: cgroup v2, systemd, another
// kernel, a real boot and a hard reset. Each file in stories/ is one story, a testscript; `make test-vm` tells them all.
//
//	build    kernel, initramfs and Debian disk, kept in a cache
//	product  disk with what `make install` installs, the kernel tests and the guest program
//	machine  QEMU processes and the switch between them
//	line     commands over the serial port; guest is its end in the machine
//
// docs/machines.md says how to write a story and how to look into a machine.
package vagrant
