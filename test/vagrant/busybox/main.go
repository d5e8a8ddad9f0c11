// Program busybox writes the image that stories start containers from: busybox-oci.tar for `ctr image import` and
// busybox-rootfs.tar for `docker import` and `podman import`, into the directory that it is given.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: busybox DIR")
		os.Exit(2)
	}
	_, err := daemons.BusyboxImage(os.Args[1])
	_, err2 := daemons.BusyboxRootfs(os.Args[1])
	if err = errors.Join(err, err2); err != nil {
		fmt.Fprintln(os.Stderr, "busybox:", err)
		os.Exit(1)
	}
}
