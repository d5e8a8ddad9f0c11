package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// dockerLine frames text as Docker's json-file does (daemon/logger/jsonfilelog/jsonlog): its own escapes, written here
// again, among them \u2028 and \u2029, and U+FFFD for what is no UTF-8.
func dockerLine(text []byte) []byte {
	b := []byte(`{"log":"`)
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < 0x20 || c == '<' || c == '>' || c == '&':
			b = fmt.Appendf(b, `\u%04x`, c)
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(text[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r == 0x2028 || r == 0x2029:
				b = fmt.Appendf(b, `\u%04x`, r)
			default:
				b = append(b, text[i:i+n]...)
			}
			i += n
			continue
		}
		i++
	}
	return append(b, `","stream":"stdout","time":"2026-11-21T09:20:00.123456789Z"}`...)
}

// everything is a text with every byte, every escape and every kind of invalid UTF-8.
func everything() []byte {
	var b []byte
	for c := range 256 {
		b = append(b, byte(c), 'x')
	}
	for r := range rune(0x3000) {
		b = utf8.AppendRune(b, r)
	}
	return append(b, "\u2028\u2029\uFFFD\uFFFF\U0001F600\U0010FFFF \xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80 \xe2\x82"...)
}

func TestBytesOfADockerLineAreThoseOfEncodingJSON(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	long := make([]byte, 0, 1<<20)
	for len(long) < 1<<20-8 {
		long = append(long, everything()[r.IntN(9000):][:r.IntN(500)]...)
	}
	texts := [][]byte{everything(), long[:1<<20-8], bytes.Repeat([]byte("\\\""), 1<<19-4), bytes.Repeat([]byte{0xff}, 1<<18), bytes.Repeat([]byte{1}, 1<<19)}
	for i, text := range texts {
		raw := dockerLine(append(bytes.Clone(text), '\n'))
		var want struct{ Log string }
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		var arena Arena
		got := New(container.DockerJSON, MaxLine).Next(raw, Mark{}, &arena)
		if len(got) != 1 || got[0].Malformed || string(got[0].Text) != strings.TrimSuffix(want.Log, "\n") {
			t.Errorf("seed %d: text %d: the decoder and encoding/json disagree", seed, i)
		}
		if valid := bytes.ToValidUTF8(text, nil); utf8.Valid(text) && !bytes.Equal(got[0].Text, valid) {
			t.Errorf("text %d: its bytes changed", i)
		}
	}
}

// Docker cuts a line into pieces of 16 KiB wherever that is, in the middle of a character too.
func TestALineOfAMebibyteIsPutTogetherFromDockersPieces(t *testing.T) {
	t.Parallel()
	text := append([]byte("ab"), bytes.Repeat([]byte("0123456789\"\\<é\t"), 1<<20/16-64)...)
	var want []byte
	d := New(container.DockerJSON, MaxLine)
	var arena Arena
	var got []string
	feed := func(part []byte) {
		raw := dockerLine(part)
		var ref struct{ Log string }
		if err := json.Unmarshal(raw, &ref); err != nil {
			t.Fatal(err)
		}
		want = append(want, ref.Log...)
		for _, l := range d.Next(raw, Mark{}, &arena) {
			got = append(got, string(l.Text))
		}
	}
	for rest := append(text, '\n'); len(rest) > 0; {
		n := min(16<<10, len(rest))
		feed(rest[:n])
		rest = rest[n:]
	}
	if len(got) != 1 || got[0] != strings.TrimSuffix(string(want), "\n") {
		t.Errorf("got %d lines, want one with the bytes that encoding/json gives for the pieces", len(got))
	}
}

func TestBytesOfACRILineStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	text := bytes.ReplaceAll(everything(), []byte("\n"), nil)
	for len(text) < MaxLine/2 {
		text = append(text, text...)
	}
	raw := append([]byte("2026-11-21T09:20:00.5Z stderr F "), text...)
	got := New(container.CRI, MaxLine).Next(raw, Mark{}, nil)
	if len(got) != 1 || got[0].Malformed || got[0].Std != Stderr || !bytes.Equal(got[0].Text, text) {
		t.Error("its bytes changed")
	}
}

func FuzzObjectAgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":"x\n","c":{"d":[1,null]},"e":true}`, `{}`, `{"a":01}`, `{"a":}`, `{"a":tru}`, `{"a":1}x`, "{\"\xff\":\"\\ud83d\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var arena Arena
		got := map[string]Value{}
		ok := Object(raw, &arena, func(key []byte, v Value) bool { got[string(key)] = v; return true })
		var want map[string]json.RawMessage
		err := json.Unmarshal(raw, &want)
		if good := err == nil && want != nil; ok != good && nested(raw) < 60 {
			t.Fatalf("%q: ok %v, encoding/json says %v", raw, ok, err)
		}
		for k, v := range got {
			var s string
			if ok && v.String && (json.Unmarshal(want[k], &s) != nil || s != string(v.Text)) || ok && !v.String && string(want[k]) != string(v.Text) {
				t.Fatalf("%q: %s is %q, encoding/json says %q", raw, k, v.Text, want[k])
			}
		}
	})
}
