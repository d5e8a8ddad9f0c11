package decode

import "bytes"

// cri reads "TIME STREAM TAGS TEXT" as the kubelet defines it (kuberuntime/logs): TAGS are divided by colons and the
// first is P for a piece or F for a full line. TEXT may be empty and may hold any byte.
func cri(raw []byte) (piece, bool) {
	var p piece
	i := bytes.IndexByte(raw, ' ')
	if i < 0 {
		return p, false
	}
	var ok bool
	if p.at, ok = parseTime(raw[:i]); !ok {
		return p, false
	}
	rest := raw[i+1:]
	switch {
	case bytes.HasPrefix(rest, []byte("stdout ")):
		p.std = Stdout
	case bytes.HasPrefix(rest, []byte("stderr ")):
		p.std = Stderr
	default:
		return p, false
	}
	rest = rest[len("stdout "):]
	if len(rest) < 1 || rest[0] != 'P' && rest[0] != 'F' {
		return p, false
	}
	p.partial = rest[0] == 'P'
	switch {
	case len(rest) == 1:
		return p, true
	case rest[1] == ' ':
		p.text = rest[2:]
		return p, true
	case rest[1] != ':':
		return p, false
	}
	if i = bytes.IndexByte(rest, ' '); i >= 0 {
		p.text = rest[i+1:]
	}
	return p, true
}
