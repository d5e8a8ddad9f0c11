package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// spoolPrefix begins the name of each whole request in the spool; what does not begin so is being written.
const spoolPrefix = "del-"

// SpoolPath is the file that holds a spooled DEL of a container's interface. There is one at most for each, so that
// whoever serves a later request for the same one can drop it.
func SpoolPath(socket, containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	return filepath.Join(filepath.Dir(socket), SpoolDir, fmt.Sprintf("%s%x", spoolPrefix, sum[:12]))
}

// Spooled gives the files of all spooled DELs.
func Spooled(socket string) ([]string, error) {
	return filepath.Glob(filepath.Join(filepath.Dir(socket), SpoolDir, spoolPrefix+"*"))
}

// Spool writes a DEL into the spool beside the socket and gives the file. A reader sees the whole request or none.
func Spool(socket string, req Request) (string, error) {
	line, err := Encode(req)
	if err != nil {
		return "", err
	}
	path := SpoolPath(socket, req.ContainerID, req.IfName)
	// The socket's directory is shared with operators; the spool is ours alone.
	err = os.MkdirAll(filepath.Dir(filepath.Dir(path)), 0o755)
	if err == nil {
		err = os.Mkdir(filepath.Dir(path), 0o700)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make spool: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-*")
	if err != nil {
		return "", fmt.Errorf("write spool: %w", err)
	}
	_, err = f.Write(line)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("write spool: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return path, nil
}
