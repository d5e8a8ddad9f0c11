package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// read decodes whole raw lines and renders each result as "std|text", with ! for malformed and + for split.
func read(d *Decoder, raw ...string) []string {
	var out []string
	var arena Arena
	off := int64(0)
	for _, r := range raw {
		for _, l := range d.Next([]byte(r), Mark{1, off}, &arena) {
			out = append(out, render(l))
		}
		off += int64(len(r)) + 1
	}
	return out
}

func render(l Line) string {
	s := l.Std.String() + "|" + string(l.Text)
	if l.Malformed {
		s += "!"
	}
	if l.Split {
		s += "+"
	}
	return s
}

func TestPiecesOfBothStreamsAreJoinedInTurns(t *testing.T) {
	t.Parallel()
	at := "2026-11-21T09:20:00.5Z"
	got := read(New(container.CRI, 100),
		at+" stdout P one ", at+" stderr F whole", at+" stdout P two ", at+" stdout F three", at+" stdout F next", at+" stdout F", "noise")
	want := []string{"stderr|whole", "stdout|one two three", "stdout|next", "stdout|", "|noise!"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHeldSaysWhereTheOldestPieceBegan(t *testing.T) {
	t.Parallel()
	d := New(container.CRI, 100)
	raw := []string{"2026-11-21T09:20:00Z stdout F a", "2026-11-21T09:20:00Z stderr P b", "2026-11-21T09:20:00Z stdout P c"}
	read(d, raw...)
	if from, ok := d.Held(); !ok || from != (Mark{1, int64(len(raw[0]) + 1)}) {
		t.Errorf("held from %v, %v; want the second line", from, ok)
	}
	if got := fmt.Sprint(len(d.Flush())); got != "2" {
		t.Errorf("flush gave %s lines, want 2", got)
	}
	if _, ok := d.Held(); ok {
		t.Error("something is held after Flush")
	}
}

func TestAJoinedLineBeyondTheBoundIsSplitBetweenPieces(t *testing.T) {
	t.Parallel()
	at := "2026-11-21T09:20:00Z stdout "
	got := read(New(container.CRI, 10), at+"P 123456", at+"P 789012", at+"F 345678")
	want := "stdout|123456+ stdout|789012+ stdout|345678"
	if strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDockerJoinsFullPiecesOnly(t *testing.T) {
	t.Parallel()
	line := func(text string) string {
		b, _ := json.Marshal(map[string]string{"log": text, "stream": "stdout", "time": "2026-11-21T09:20:00Z"})
		return string(b)
	}
	full := strings.Repeat("x", dockerPiece)
	got := read(New(container.DockerJSON, MaxLine), line(full), line(full), line("end\n"), line("last words"), line("after restart\n"))
	want := []string{"stdout|" + full + full + "end", "stdout|last words", "stdout|after restart"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %d lines, want %d: %.200q", len(got), len(want), got)
	}
}

func TestForeignKeysAreReadOverAndBrokenLinesKept(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"log":"a\n","attrs":{"k":["v",{"x":-1.5e3,"y":null}]},"stream":"stderr","time":"2026-11-21T09:20:00.1Z"}`: "stderr|a",
		`{"log":"a\u00e9\ud83d\ude00\ud83dx\/\"\n","stream":"stdout","time":"2026-11-21T09:20:00Z"}`:                "stdout|aé😀\uFFFDx/\"",
		"{\"log\":\"\xff\xc3\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T09:20:00Z\"}":                         "stdout|\uFFFD\uFFFD",
		`{"log":"torn`: `|{"log":"torn!`,
		`{"log":"a\n","stream":"stdout","time":"yesterday"}`: `|{"log":"a\n","stream":"stdout","time":"yesterday"}!`,
	} {
		if got := read(New(container.DockerJSON, MaxLine), in); len(got) != 1 || got[0] != want {
			t.Errorf("%s\n got %q\nwant %q", in, got, want)
		}
	}
}

func FuzzDockerAgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{
		`{"log":"hello\n","stream":"stdout","time":"2026-11-21T09:20:00.123456789Z"}`,
		`{"log":"\u0000\ud83d\ude00\ud800\\\"\/\b\f\r\t","stream":"stderr","time":"2026-11-21T09:20:00+02:00"}`,
		"{\"log\":\"\xff\xfe\",\"x\":[1,{\"a\":true}],\"time\":\"2024-02-29T23:59:59Z\"}", `{ }`, `{"log":"a",}`, `{"a" :{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var arena Arena
		p, ok := dockerJSON(raw, &arena)
		var ref map[string]json.RawMessage
		err := json.Unmarshal(raw, &ref)
		if err != nil || ref == nil {
			// Ours looks at numbers, words and unused keys less strictly; what it takes beyond JSON is kept text.
			return
		}
		want, good := piece{}, true
		str := func(key string) (string, bool) {
			var s string
			v, have := ref[key]
			if !have {
				return "", false
			}
			if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, &s) != nil {
				good = false
			}
			return s, true
		}
		text, _ := str("log")
		std, _ := str("stream")
		when, haveTime := str("time")
		want.std = stdOf([]byte(std))
		if haveTime && good {
			parsed, ok := parseTime([]byte(when))
			want.at, good = parsed, ok
		}
		if bytes.Count(raw, []byte(`"log"`))+bytes.Count(raw, []byte(`"time"`))+bytes.Count(raw, []byte(`"stream"`)) > 3 {
			return // the same key twice: encoding/json keeps the last even when the first is of another type
		}
		if nested(raw) > 60 {
			return
		}
		if ok != good {
			t.Fatalf("%q: ok %v, encoding/json says %v", raw, ok, good)
		}
		if ok && (string(p.text) != strings.TrimSuffix(text, "\n") || p.std != want.std || p.at != want.at) {
			t.Fatalf("%q: got %q %v %d, want %q %v %d", raw, p.text, p.std, p.at, text, want.std, want.at)
		}
	})
}

func nested(raw []byte) int { return bytes.Count(raw, []byte("[")) + bytes.Count(raw, []byte("{")) }

var criLine = regexp.MustCompile(`(?s)^([^ ]*) (stdout|stderr) ([PF])(?:(?::[^ ]*)?| (.*)|:[^ ]* (.*))$`)

func FuzzCRIAgreesWithAReference(f *testing.F) {
	for _, s := range []string{
		"2016-10-06T00:17:09.669794202Z stdout P log content 1", "2016-10-06T00:17:10.113242941Z stderr F log content 2",
		"2016-10-06T00:17:10.113242941+02:00 stdout F:tag:x ", "2016-10-06T00:17:10Z stdout F", "2016-10-06T00:17:10Z stdout Fx y",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, ok := cri(raw)
		m := criLine.FindSubmatch(raw)
		var at int64
		good := m != nil
		if good {
			at, good = parseTime(m[1])
		}
		if ok != good {
			t.Fatalf("%q: ok %v, reference %v", raw, ok, good)
		}
		if !ok {
			return
		}
		text := string(m[4]) + string(m[5])
		if p.at != at || p.std.String() != string(m[2]) || p.partial != (m[3][0] == 'P') || string(p.text) != text {
			t.Fatalf("%q: got %v %q, want %q", raw, p, p.text, m[1:])
		}
	})
}

func FuzzTimeAgreesWithTheStandardLibrary(f *testing.F) {
	for _, s := range []string{"2026-11-21T09:20:00.123456789Z", "2024-02-29T00:00:00-23:59", "2023-02-29T00:00:00Z", "1970-01-01T00:00:00Z", "2100-03-01T00:00:00.5+01:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseTime([]byte(s))
		want, err := time.Parse(time.RFC3339Nano, s)
		if ok && (err != nil || got != want.UnixNano()) {
			t.Fatalf("%q: got %d, time.Parse %v %v", s, got, want, err)
		}
		// time.Parse also takes a comma, one-digit hours and longer fractions, which no runtime writes.
		usual := len(s) >= 20 && s[13] == ':' && !strings.Contains(s, ",") && len(s) <= 35
		if !ok && err == nil && usual && want.Year() > 1970 && want.Year() < 2261 && strings.TrimLeft(s[19:], ".0123456789") == "Z" && len(s) <= 30 {
			t.Fatalf("%q refused, time.Parse takes it", s)
		}
	})
}

func BenchmarkDocker(b *testing.B) {
	raw := []byte(`{"log":"` + strings.Repeat("some words of a log line ", 8) + `\n","stream":"stdout","time":"2026-11-21T09:20:00.123456789Z"}`)
	benchmark(b, container.DockerJSON, raw)
}

func BenchmarkDockerWithQuotes(b *testing.B) {
	raw := []byte(`{"log":"level=info path=/a/b msg=\"` + strings.Repeat("some words of a log line ", 7) + `\" n=1\n","stream":"stdout","time":"2026-11-21T09:20:00.123456789Z"}`)
	benchmark(b, container.DockerJSON, raw)
}

func TestPlainEndsAtTheFirstByteThatDoesNotStandForItself(t *testing.T) {
	t.Parallel()
	for at := range 20 {
		for c := range 256 {
			b := []byte(strings.Repeat("a", 24))
			b[at] = byte(c)
			want := len(b)
			if c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
				want = at
			}
			if got := plain(b); got != want {
				t.Fatalf("%q: %d, want %d", b, got, want)
			}
		}
	}
	if got := plain([]byte("Größe 日本語 größer als 8\xff")); got != len("Größe 日本語 größer als 8") {
		t.Error(got)
	}
}

func BenchmarkCRI(b *testing.B) {
	benchmark(b, container.CRI, []byte("2026-11-21T09:20:00.123456789Z stdout F "+strings.Repeat("some words of a log line ", 8)))
}

func benchmark(b *testing.B, format container.LogFormat, raw []byte) {
	d := New(format, MaxLine)
	var arena Arena
	b.SetBytes(int64(len(raw)) + 1)
	b.ReportAllocs()
	for b.Loop() {
		arena.Reset()
		if l := d.Next(raw, Mark{}, &arena); len(l) != 1 || l[0].Malformed {
			b.Fatal(l)
		}
	}
}
