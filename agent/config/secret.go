package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// secret is a reference and what it stood for when the file was decoded.
type secret struct{ ref, value string }

// maxSecret bounds what is read from a file: a key or a token, not a disk image named by mistake.
const maxSecret = 64 << 10

// resolve replaces each ${env:NAME} and ${file:/path} in text by its value, and $${ by ${.
func resolve(text string) (string, []secret, error) {
	var b strings.Builder
	var found []secret
	for text != "" {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			break
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		end := strings.IndexByte(text[i:], '}')
		if end < 0 {
			return "", nil, fmt.Errorf("a ${ without its }; write $${ for a plain ${")
		}
		ref := text[i : i+end+1]
		value, err := lookup(ref)
		if err != nil {
			return "", nil, err
		}
		found = append(found, secret{ref, value})
		b.WriteString(value)
		text = text[i+end+1:]
	}
	return b.String(), found, nil
}

// lookup gives the value of one reference. A file's last line end is not part of its value.
func lookup(ref string) (string, error) {
	kind, name, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(ref, "${"), "}"), ":")
	switch {
	case kind == "env" && name != "":
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("%s: the environment has no variable %s", ref, name)
		}
		return value, nil
	case kind == "file" && filepath.IsAbs(name):
		value, err := readSecret(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", ref, err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r"), nil
	}
	return "", fmt.Errorf("unknown reference %s; write ${env:NAME} or ${file:/path}, or $${ for a plain ${", ref)
}

func readSecret(path string) (string, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular(): // a fifo or a device could block or never end
		return "", errors.New("not a regular file")
	case st.Size() > maxSecret:
		return "", fmt.Errorf("has %d bytes, more than %d", st.Size(), maxSecret)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return string(b), err
}

// escape is resolve's inverse for text without references.
func escape(text string) string { return strings.ReplaceAll(text, "${", "$${") }
