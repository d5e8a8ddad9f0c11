package shape

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

var someone = &sink.Origin{Host: "web1", ID: "c1", Name: "shop", Image: "reg.example.net/team/shop:1", Namespace: "prod", Labels: map[string]string{"app": "web"}}

// chain compiles one rule.
func chain(t testing.TB, r Rule) *Chain {
	t.Helper()
	set, err := Compile([]Rule{r})
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.For(someone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// feed pushes lines of one stream, a byte of newline each, one millisecond apart, and flushes at the end.
func feed(s *State, lines ...string) []string {
	var got []string
	var arena decode.Arena
	off, now := int64(0), int64(0)
	take := func(outs []Out) {
		for _, o := range outs {
			got = append(got, show(o))
		}
	}
	for _, l := range lines {
		end := off + int64(len(l)) + 1
		take(s.Push(decode.Line{Text: []byte(l), At: now + 1}, decode.Mark{Off: off}, decode.Mark{Off: end}, now, &arena))
		off, now = end, now+1e6
	}
	take(s.Flush(now, &arena))
	return got
}

func show(o Out) string {
	text := string(o.Text)
	for _, f := range o.Fields {
		text += fmt.Sprintf(" {%s:%s}", f.Name, f.Value)
	}
	if o.Dropped != Kept {
		text += " -" + o.Dropped.String()
	}
	return text
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
		t.Errorf("got %d records:\n%s\nwant %d:\n%s", len(got), strings.Join(got, "\n---\n"), len(want), strings.Join(want, "\n---\n"))
	}
}

const goTrace = `panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.(*shop).sell(0xc000012345, {0x1, 0x2})
	/src/shop.go:12 +0x1d
main.main()
	/src/main.go:9 +0x20
created by net/http.(*Server).Serve in goroutine 1
	/usr/lib/go/src/net/http/server.go:3285 +0x4b4
exit status 2`

const javaTrace = `2026-11-21 09:20:00 ERROR shop.Till - cannot sell
java.lang.IllegalStateException: closed
	at shop.Till.sell(Till.java:42)
	at shop.Main.main(Main.java:7)
Caused by: java.io.IOException: disk
	at shop.Disk.write(Disk.java:3)
	... 2 more`

const pythonTrace = `Traceback (most recent call last):
  File "/app/a.py", line 3, in sell
    raise KeyError("x")
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/a.py", line 5, in main
    sell()
ValueError: closed`

func TestATraceOfEachLanguageIsOneRecord(t *testing.T) {
	t.Parallel()
	for name, trace := range map[string]string{"go": goTrace, "java": javaTrace, "python": pythonTrace} {
		in := append([]string{"before"}, strings.Split(trace, "\n")...)
		in = append(append(in, "after"), strings.Split(trace, "\n")...)
		s := chain(t, Rule{Multiline: name}).New()
		t.Log(name)
		want(t, feed(s, in...), "before", trace, "after", trace)
		if n := uint64(2 * strings.Count(trace, "\n")); s.Joined != n {
			t.Errorf("%s: %d lines joined, want %d", name, s.Joined, n)
		}
	}
}

func TestOrdinaryLinesDoNotWaitForAGoOrPythonTrace(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"go", "python"} {
		s := chain(t, Rule{Multiline: name}).New()
		for _, l := range []string{"INFO: started", "", "\tindented", "ValueError: told, not raised"} {
			if got := s.Push(decode.Line{Text: []byte(l)}, decode.Mark{}, decode.Mark{Off: 1}, 0, nil); len(got) != 1 || string(got[0].Text) != l {
				t.Errorf("%s: %q gave %d records at once, want it alone", name, l, len(got))
			}
		}
	}
}

func TestAStartPatternMakesEachLineThatMatchesARecordsFirst(t *testing.T) {
	t.Parallel()
	s := chain(t, Rule{Multiline: `^\d{4}-`}).New()
	want(t, feed(s, "torn end", "2026-a", "b", "", "2026-c", "2026-d"), "torn end", "2026-a\nb\n", "2026-c", "2026-d")
}

func TestARecordIsCutAtItsBoundsAndCounted(t *testing.T) {
	t.Parallel()
	s := chain(t, Rule{Multiline: "^start", MaxLines: 3}).New()
	want(t, feed(s, "start", "1", "2", "3", "4", "start"), "start\n1\n2", "3\n4", "start")
	if s.Cut != 1 {
		t.Errorf("%d cuts, want 1", s.Cut)
	}
	long := strings.Repeat("x", 600)
	s = chain(t, Rule{Multiline: "^start", MaxBytes: 1024}).New()
	want(t, feed(s, "start", long, long, "start"), "start\n"+long, long, "start")
}

func TestARecordEndsWhenNothingWasAddedForItsTimeout(t *testing.T) {
	t.Parallel()
	var arena decode.Arena
	s := chain(t, Rule{Multiline: "^start", Timeout: 2 * time.Second}).New()
	now := int64(time.Hour)
	if got := s.Push(decode.Line{Text: []byte("start"), At: 7}, decode.Mark{Off: 10}, decode.Mark{Off: 16}, now, &arena); len(got) != 0 {
		t.Fatalf("the first line came out at once")
	}
	if from, ok := s.Held(); !ok || from.Off != 10 {
		t.Errorf("held from %v %v, want 10", from, ok)
	}
	if at, ok := s.Due(); !ok || at != now+2e9 {
		t.Errorf("due at %d %v", at, ok)
	}
	if got := s.Tick(now+2e9-1, true, &arena); len(got) != 0 {
		t.Errorf("it came before its timeout")
	}
	if got := s.Tick(now+2e9, false, &arena); len(got) != 0 {
		t.Errorf("it came although more lines are to be read")
	}
	got := s.Tick(now+2e9, true, &arena)
	if len(got) != 1 || got[0].From.Off != 10 || got[0].End.Off != 16 || got[0].At != 7 {
		t.Errorf("got %+v", got)
	}
	if _, ok := s.Due(); ok {
		t.Error("something is due after that")
	}
}

func TestStdoutAndStderrAreJoinedApart(t *testing.T) {
	t.Parallel()
	var arena decode.Arena
	s := chain(t, Rule{Multiline: "^start"}).New()
	var got []string
	for i, l := range []struct {
		std  decode.Std
		text string
	}{{decode.Stdout, "start out"}, {decode.Stderr, "start err"}, {decode.Stdout, "o"}, {decode.Stderr, "e"}, {decode.Stdout, "start 2"}} {
		for _, o := range s.Push(decode.Line{Std: l.std, Text: []byte(l.text)}, decode.Mark{Off: int64(i)}, decode.Mark{Off: int64(i + 1)}, 0, &arena) {
			got = append(got, fmt.Sprintf("%s %s %d-%d", o.Std, o.Text, o.From.Off, o.End.Off))
		}
	}
	want(t, got, "stdout start out\no 0-3")
	if from, ok := s.Held(); !ok || from.Off != 1 {
		t.Errorf("held from %v, want the first line on stderr", from)
	}
}

func TestFieldsOfEachForm(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ parse, in, want string }{
		{"json", `{"level":"info","n":1.50,"ok":true,"none":null,"http":{"status":200,"h":{"a":"\u00e9\n"}},"list":[1,"x"]}`,
			"- {level:info} {n:1.50} {ok:true} {none:null} {http.status:200} {http.h.a:é\n} {list:[1,\"x\"]}"},
		{"json", `{}`, "-"},
		{"json", `{"a":1,"b":2,"a":3}`, "- {b:2} {a:3}"},
		{"json", `{"a":01}`, "as it is"},
		{"json", `{"a":1} x`, "as it is"},
		{"json", `[1]`, "as it is"},
		{"json", `plain text`, "as it is"},
		{"logfmt", `level=info msg="two \"words\"" empty= bare n=1`, `- {level:info} {msg:two "words"} {empty:} {bare:} {n:1}`},
		{"logfmt", `no pair at all`, "as it is"},
		{"logfmt", `a="open`, "as it is"},
		{"logfmt", ``, "as it is"},
		{`^(?P<ip>\S+) - (?P<user>\w+)?.* (?P<status>\d+)$`, `10.0.0.1 - - "GET /" 404`, "- {ip:10.0.0.1} {status:404}"},
		{`^(?P<ip>\d+)$`, `x`, "as it is"},
	} {
		s := chain(t, Rule{Parse: tc.parse}).New()
		got := feed(s, tc.in)[0]
		expect := strings.Replace(tc.want, "-", tc.in, 1)
		if tc.want == "as it is" {
			expect = tc.in
		}
		if got != expect {
			t.Errorf("%s: got  %s\nwant %s", tc.parse, got, expect)
		}
		if s.Parsed+s.Unparsed != 1 || (s.Unparsed == 1) != (tc.want == "as it is") {
			t.Errorf("%s %s: counted %+v", tc.parse, tc.in, s.Counts)
		}
	}
}

func TestTimeIsReadFromItsField(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ format, in, want string }{
		{"", "2026-11-21T09:20:00.25+01:00", "2026-11-21T08:20:00.25Z"},
		{"", "1795252800", "2026-11-21T09:20:00Z"},
		{"", "1795252800.5", "2026-11-21T09:20:00.5Z"},
		{"", "1795252800250", "2026-11-21T09:20:00.25Z"},
		{"", "1795252800000001", "2026-11-21T09:20:00.000001Z"},
		{"", "1795252800000000007", "2026-11-21T09:20:00.000000007Z"},
		{"unix_ms", "1795252800250", "2026-11-21T09:20:00.25Z"},
		{"02/Jan/2006:15:04:05 -0700", "21/Nov/2026:10:20:00 +0100", "2026-11-21T09:20:00Z"},
		{"", "yesterday", ""}, {"", "", ""}, {"", "-5", ""}, {"unix", "99999999999999", ""}, {"", "1.x", ""},
	} {
		s := chain(t, Rule{Parse: "json", Time: "ts", Format: tc.format}).New()
		var arena decode.Arena
		got := s.Pass(decode.Line{At: 42, Text: []byte(`{"ts":"` + tc.in + `"}`)}, decode.Mark{}, decode.Mark{}, 0, &arena)[0]
		if tc.want == "" {
			if got.At != 42 || s.Untimed != 1 {
				t.Errorf("%q: time %d, untimed %d; want the line's own time", tc.in, got.At, s.Untimed)
			}
			continue
		}
		if at := time.Unix(0, got.At).UTC().Format(time.RFC3339Nano); at != tc.want || len(got.Fields) > 0 {
			t.Errorf("%q as %q: got %s %v, want %s", tc.in, tc.format, at, got.Fields, tc.want)
		}
	}
}

func TestRecordsAreKeptDroppedAndRedacted(t *testing.T) {
	t.Parallel()
	s := chain(t, Rule{Parse: "json", Message: "msg",
		Drop:   []Filter{{Match: "healthz"}, {Field: "level", Match: "^debug$"}},
		Keep:   []Filter{{Field: "level", Match: "."}},
		Redact: []Redact{{Match: `\b\d{16}\b`}, {Match: `token=(\w)\w*`, With: "token=$1***"}},
	}).New()
	want(t, feed(s, `{"level":"info","msg":"sold"}`, `{"level":"debug","msg":"x"}`, `{"level":"info","msg":"GET /healthz"}`, `no level`,
		`{"level":"warn","msg":"card 4111111111111111","q":"token=secret"}`),
		"sold {level:info}", "x {level:debug} -rule", "GET /healthz {level:info} -rule", "no level -rule",
		"card [redacted] {level:warn} {q:token=s***}")
	if s.Filtered != 3 || s.Redacted != 1 || s.Summaries != 0 {
		t.Errorf("counted %+v", s.Counts)
	}
}

func TestOneSummaryTellsWhatSampleAndBudgetDropped(t *testing.T) {
	t.Parallel()
	s := chain(t, Rule{Sample: 2, Rate: "3/s"}).New()
	var in []string
	for i := range 20 { // 10 are sampled away, 3 are within the budget, 7 beyond it
		in = append(in, fmt.Sprint(i))
	}
	got := feed(s, in...)
	if s.Sampled != 10 || s.Over != 7 || s.Summaries != 1 || len(got) != 21 {
		t.Fatalf("%d records, counted %+v", len(got), s.Counts)
	}
	want(t, got[20:], "fairlead: 17 records of this log were dropped between 1970-01-01T00:00:00.001Z and 1970-01-01T00:00:00.019Z: 10 by sampling 1 of 2; 7 by the budget of 3/s {fairlead_dropped_sample:10} {fairlead_dropped_budget:7}")
	if s.Dropped() {
		t.Error("a summary is still owed")
	}
}

func TestTheBudgetGoesByTheTimesOfTheRecords(t *testing.T) {
	t.Parallel()
	var arena decode.Arena
	s := chain(t, Rule{Rate: "100/s"}).New()
	kept := 0
	// An hour's backlog of 10 records a second, read at once, and then a burst.
	for i := range 36_000 {
		if s.Push(decode.Line{At: int64(i+1) * 1e8}, decode.Mark{}, decode.Mark{}, 5, &arena)[0].Dropped == Kept {
			kept++
		}
	}
	if kept != 36_000 {
		t.Errorf("%d of 36,000 were kept", kept)
	}
	kept = 0
	for range 1000 {
		if s.Push(decode.Line{At: 3_700e9}, decode.Mark{}, decode.Mark{}, 5, &arena)[0].Dropped == Kept {
			kept++
		}
	}
	if kept != 100 {
		t.Errorf("%d of a burst were kept, want 100", kept)
	}
}

func TestASummaryComesAtMostOnceAMinute(t *testing.T) {
	t.Parallel()
	var arena decode.Arena
	s := chain(t, Rule{Sample: 10}).New()
	for second := range 180 {
		now := int64(second) * 1e9
		for range 10 {
			s.Push(decode.Line{At: now + 1}, decode.Mark{}, decode.Mark{}, now, &arena)
		}
		s.Tick(now, false, &arena)
	}
	if s.Summaries != 2 || s.Sampled != 1620 {
		t.Errorf("%d summaries of %d dropped records in three minutes, want 2 of 1620", s.Summaries, s.Sampled)
	}
}

func TestRulesAndLabelsAddUp(t *testing.T) {
	t.Parallel()
	set, err := Compile([]Rule{
		{Match: Match{Name: "sh*"}, Multiline: "go", Rate: "10/s", Sample: 2, Redact: []Redact{{Match: "a"}}},
		{Match: Match{Label: "app=w*", Image: "*/shop:*", Namespace: "prod"}, Parse: "json", Sinks: []string{"central"}},
		{Match: Match{Label: "app=db"}, Drop: []Filter{{Match: "."}}},
		{Match: Match{Path: "/var/log/*"}, Drop: []Filter{{Match: "."}}},
		{Match: Match{Label: "absent"}, Drop: []Filter{{Match: "."}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	o := *someone
	o.Labels = map[string]string{"app": "web", "fairlead.logs": "/x", "fairlead.logs.multiline": "^x", "fairlead.logs.rate": "1000/s", "fairlead.logs.redact": "b", "fairlead.logs.message": "m"}
	c, err := set.For(&o)
	if err != nil {
		t.Fatal(err)
	}
	if c.budget.text != "10/s" || c.sample != 2 || len(c.redacts) != 2 || c.parse == nil || c.message != "m" || len(c.filters) != 0 ||
		strings.Join(c.Sinks(), ",") != "central" || !c.join.starts([]byte("y")) || c.Plain() {
		t.Errorf("got %+v", c)
	}
	if c, err := set.For(&sink.Origin{Host: "web1", Path: "/other"}); c != nil || err != nil {
		t.Errorf("a log that nothing matches has %+v %v", c, err)
	}
	if c, _ := set.For(&sink.Origin{Path: "/var/log/a/b"}); c == nil || len(c.filters) != 1 {
		t.Errorf("the rule for a path does not match")
	}
}

func TestABadRuleIsOneErrorWithItsKeyAndWhatWasExpected(t *testing.T) {
	t.Parallel()
	_, err := Compile([]Rule{
		{Multiline: "("}, {Parse: "xml"}, {Message: "m"}, {Rate: "fast"}, {Sample: -1}, {Format: "unix"},
		{Parse: "json", Time: "t", Format: "yyyy-mm-dd"}, {Redact: []Redact{{Match: "x*"}}}, {Keep: []Filter{{}}}, {MaxBytes: 5000}, {Match: Match{Label: "=x"}},
		{Multiline: "go", MaxLines: 1, Timeout: time.Hour}, {Multiline: "jva"}, {Multiline: "JAVA"}, {Multiline: "^jva"}, {Multiline: "ERROR|WARN"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	if w := `[12].multiline: "jva" is not valid, expected go, java, python, or a pattern for each record's first line, such as ^jva`; !slices.Contains(got, w) {
		t.Errorf("no error is %s", w)
	}
	if len(got) != 15 {
		t.Errorf("%d problems:\n%v", len(got), err)
	}
	for _, w := range []string{`[0].multiline: "("`, `[1].parse: "xml"`, `[2].parse: ""`, `[3].rate: "fast"`, `[4].sample: "-1"`, `[5].time: ""`, `[6].time_format: "yyyy-mm-dd"`,
		`[7].redact[0].match: "x*"`, `[8].keep[0].match: ""`, `[9].multiline: ""`, `[10].match.label: "=x"`, `[11].max_lines: "1"`, `[11].timeout: "1h0m0s"`, `[12].multiline: "jva"`, `[13].multiline: "JAVA"`} {
		n := 0
		for _, g := range got {
			if strings.HasPrefix(g, w+" is not valid, expected ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d problems begin %s, want one; all:\n%v", n, w, err)
		}
	}
	for label, v := range map[string]string{"multiline": "(", "sample": "few", "rate": "9", "multi": "go"} {
		c, err := (*Set)(nil).For(&sink.Origin{Labels: map[string]string{"fairlead.logs." + label: v, "fairlead.logs.drop": "x"}})
		if err == nil || !strings.HasPrefix(err.Error(), "label fairlead.logs."+label+`: "`+v+`" is not valid, expected `) || strings.Contains(err.Error(), "\n") {
			t.Errorf("label %s: error %v", label, err)
		}
		if c == nil || len(c.filters) != 1 {
			t.Errorf("label %s: what is right beside it does not count", label)
		}
	}
}

func FuzzNoLineIsLostInJoining(f *testing.F) {
	f.Add("go", goTrace)
	f.Add("java", javaTrace)
	f.Add("python", pythonTrace)
	f.Add("^a", "a\nb\na")
	f.Fuzz(func(t *testing.T, how, text string) {
		if how != "go" && how != "java" && how != "python" {
			how = "^a"
		}
		lines := strings.Split(text, "\n")
		s := chain(t, Rule{Multiline: how, MaxLines: 4, MaxBytes: 1024}).New()
		if got := strings.Join(feed(s, lines...), "\n"); got != text {
			t.Fatalf("%s: got %q, want %q", how, got, text)
		}
	})
}

func FuzzParsersTakeAnyLine(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,{}]},"c":"\ud83d"}`, `a=1 b="x\"" c`, `=`, `a==b`, "{\"a\":\"\xff\"}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var arena decode.Arena
		for _, p := range []parser{parseJSON, parseLogfmt} {
			if fields, ok := p([]byte(line), &arena); !ok && fields != nil || len(fields) > maxFields {
				t.Fatalf("%q: %v %v", line, fields, ok)
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	s := chain(b, Rule{Drop: []Filter{{Match: "healthz"}}, Rate: "1000000/s"}).New()
	l := decode.Line{At: 1, Text: []byte(strings.Repeat("some words of a log line ", 8))}
	b.ReportAllocs()
	for b.Loop() {
		l.At += 1e6
		s.Push(l, decode.Mark{}, decode.Mark{}, 0, nil)
	}
}
