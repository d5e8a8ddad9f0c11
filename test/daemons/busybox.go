package daemons

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// BusyboxName is the name under which the image of BusyboxImage is known after its import.
const BusyboxName = "docker.io/library/fairlead-busybox:1"

// BusyboxImage writes an OCI image with the machine's static busybox and a link for each of its applets as a tar into
// dir, for `ctr image import`. Run without a command it sleeps, so that it serves as CRI's pause image as well. Nothing is
// downloaded.
func BusyboxImage(dir string) (path string, err error) {
	layer, err := busyboxLayer()
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "2147483647"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return "", err
	}
	d := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	d["annotations"] = map[string]string{"io.containerd.image.name": BusyboxName}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{d}})
	if err != nil {
		return "", err
	}
	w := newTar()
	w.file("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	w.file("index.json", 0o644, index)
	for _, blob := range [][]byte{config, manifest, layer} {
		w.file("blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:"), 0o644, blob)
	}
	return w.write(filepath.Join(dir, "busybox-oci.tar"))
}

// BusyboxRootfs writes the same root file system alone, for `docker import` and `podman import`.
func BusyboxRootfs(dir string) (path string, err error) {
	layer, err := busyboxLayer()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "busybox-rootfs.tar")
	return path, os.WriteFile(path, layer, 0o644)
}

func busyboxLayer() ([]byte, error) {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("build image: %w; install the Debian package busybox-static", err)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	applets, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("build image: list applets: %w", err)
	}
	w := newTar()
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"} {
		w.add(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}, nil)
	}
	w.file("bin/busybox", 0o755, program)
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			w.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	w.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	w.file("etc/group", 0o644, []byte("root:x:0:\n"))
	return w.bytes()
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func descriptor(mediaType string, blob []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(blob), "size": len(blob)}
}

// tarball gathers a tar and its first error.
type tarball struct {
	buf bytes.Buffer
	tar *tar.Writer
	err error
}

func newTar() *tarball {
	t := &tarball{}
	t.tar = tar.NewWriter(&t.buf)
	return t
}

func (t *tarball) add(h *tar.Header, body []byte) {
	if t.err == nil {
		t.err = t.tar.WriteHeader(h)
	}
	if t.err == nil {
		_, t.err = t.tar.Write(body)
	}
}

func (t *tarball) file(name string, mode int64, body []byte) {
	t.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body)
}

func (t *tarball) bytes() ([]byte, error) {
	if t.err == nil {
		t.err = t.tar.Close()
	}
	if t.err != nil {
		return nil, fmt.Errorf("write tar: %w", t.err)
	}
	return t.buf.Bytes(), nil
}

func (t *tarball) write(path string) (string, error) {
	b, err := t.bytes()
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o644)
}
