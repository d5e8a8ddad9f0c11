package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/config"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

const logsTestHelp = `fairlead logs test [--rule RULE]... [--label KEY=VALUE]... [--name N] [--format F] [--json] FILE

What a set of rules would make of the lines of FILE (- is standard input): which become one record, their fields and
times, what is dropped and why. Nothing is sent and no daemon is asked. A RULE is an entry of logship.rules in YAML;
without one the rules of --config are taken. Labels are those of the container that the file is to be taken for.
The rate goes by the records' times; lines without one all come at once here. Examples:

  fairlead logs test --rule 'multiline: java, drop: [{match: healthz}]' app.log
  fairlead logs test --label fairlead.logs.parse=json --format docker-json c-json.log`

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ", ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// formats are the frames that lines of a file may have, by the names that logs ls shows.
var formats = []container.LogFormat{container.Plain, container.CRI, container.DockerJSON}

func runLogsTest(e env, args []string) error {
	f := newFlags(e, "logs test", logsTestHelp)
	var rules, labels list
	f.Var(&rules, "rule", "a `rule` in YAML, taken instead of the configuration's; may be repeated")
	f.Var(&labels, "label", "`KEY=VALUE` of the container; may be repeated")
	from := f.String("config", defaultConfigFile, "configuration `file` whose rules are taken without --rule")
	name := f.String("name", "", "the container's `name`")
	image := f.String("image", "", "the container's `image`")
	namespace := f.String("namespace", "", "the container's Kubernetes `namespace`")
	path := f.String("path", "", "the file's `path` inside the container")
	format := f.String("format", string(container.Plain), "how lines are framed: plain, cri or docker-json")
	asJSON := f.Bool("json", false, "print one JSON object a record, and the counts in a last one")
	if err := f.Parse(args); err != nil {
		return f.fault(err)
	}
	if f.NArg() != 1 {
		return misuse("expected one file, found %d, see --help", f.NArg())
	}
	if !slices.Contains(formats, container.LogFormat(*format)) {
		return misuse("--format is %q, expected plain, cri or docker-json", *format)
	}
	o := &sink.Origin{Name: *name, Image: *image, Namespace: *namespace, Path: *path, Labels: map[string]string{}}
	for _, l := range labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return misuse("--label is %q, expected KEY=VALUE", l)
		}
		o.Labels[k] = v
	}
	set, err := ruleSet(rules, *from)
	if err != nil {
		return err
	}
	chain, err := set.For(o)
	if err != nil {
		return err
	}
	in := io.Reader(os.Stdin)
	if f.Arg(0) != "-" {
		file, err := os.Open(f.Arg(0))
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		defer file.Close()
		in = file
	}
	out := bufio.NewWriter(e.stdout)
	t := &trial{out: out, json: *asJSON, format: container.LogFormat(*format)}
	if chain == nil {
		chain = &shape.Chain{}
		t.untouched = true
	}
	return errors.Join(t.run(in, chain), out.Flush())
}

// fault tells help from a wrong flag.
func (f *flags) fault(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return f.help()
	}
	return misuse("%v", err)
}

// ruleSet compiles the rules of the command line, else those of the configuration.
func ruleSet(texts []string, file string) (*shape.Set, error) {
	if len(texts) == 0 {
		c, _, err := loadFile(file, file != defaultConfigFile)
		if err != nil {
			return nil, err
		}
		return shape.Compile(c.Logship.Rules)
	}
	var rules []shape.Rule
	for _, text := range texts {
		if !strings.HasPrefix(strings.TrimSpace(text), "{") {
			text = "{" + text + "}"
		}
		var r struct {
			Rule shape.Rule `yaml:"rule"`
		}
		if _, err := config.Decode("--rule", []byte("rule: "+text), &r); err != nil {
			return nil, err
		}
		rules = append(rules, r.Rule)
	}
	set, err := shape.Compile(rules)
	if err != nil {
		return nil, fmt.Errorf("--rule%w", err)
	}
	return set, nil
}

// trial runs one file through a chain and prints what comes out.
type trial struct {
	out       *bufio.Writer
	json      bool
	untouched bool // no rule applies
	format    container.LogFormat
	lines     int64
	kept      uint64
	malformed uint64
}

// run uses line numbers as offsets: record N..M lies between the marks N-1 and M.
func (t *trial) run(in io.Reader, chain *shape.Chain) error {
	state, dec := chain.New(), decode.New(t.format, decode.MaxLine)
	var arena decode.Arena
	r := bufio.NewReaderSize(in, 1<<20)
	for {
		raw, err := r.ReadBytes('\n')
		if len(raw) > 0 {
			start := decode.Mark{Off: t.lines}
			t.lines++
			end := decode.Mark{Off: t.lines}
			for _, l := range dec.Next(bytes.TrimSuffix(raw, []byte("\n")), start, &arena) {
				for _, o := range state.Push(l, start, end, max(l.At, 1), &arena) {
					if err := t.print(o); err != nil {
						return err
					}
				}
			}
			if _, held := dec.Held(); !held {
				arena.Reset()
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	end := decode.Mark{Off: t.lines}
	for _, l := range dec.Flush() {
		for _, o := range state.Push(l, end, end, max(l.At, 1), &arena) {
			if err := t.print(o); err != nil {
				return err
			}
		}
	}
	for _, o := range state.Flush(1, &arena) {
		if err := t.print(o); err != nil {
			return err
		}
	}
	return t.sum(state.Counts)
}

// trialRecord is one record as --json prints it.
type trialRecord struct {
	First     int64             `json:"first_line,omitempty"`
	Last      int64             `json:"last_line,omitempty"`
	Time      *time.Time        `json:"time,omitempty"`
	Stream    string            `json:"stream,omitempty"`
	Text      string            `json:"text"`
	Fields    map[string]string `json:"fields,omitempty"`
	Dropped   string            `json:"dropped_by,omitempty"`
	Malformed bool              `json:"malformed,omitempty"`
	Summary   bool              `json:"summary,omitempty"`
}

func (t *trial) print(o shape.Out) error {
	if o.Malformed {
		t.malformed++
	}
	if o.Dropped == shape.Kept && !o.Summary {
		t.kept++
	}
	r := trialRecord{Stream: o.Std.String(), Text: string(o.Text), Malformed: o.Malformed, Summary: o.Summary}
	if !o.Summary {
		r.First, r.Last = o.From.Off+1, o.End.Off
	}
	if o.At > 1 {
		at := time.Unix(0, o.At).UTC()
		r.Time = &at
	}
	if o.Dropped != shape.Kept {
		r.Dropped = o.Dropped.String()
	}
	for _, f := range o.Fields {
		if r.Fields == nil {
			r.Fields = map[string]string{}
		}
		r.Fields[f.Name] = f.Value
	}
	if t.json {
		return json.NewEncoder(t.out).Encode(r)
	}
	return t.show(&r, o.Fields)
}

func (t *trial) show(r *trialRecord, fields []sink.Field) error {
	what := "kept"
	switch {
	case r.Summary:
		what = "summary"
	case r.Dropped != "":
		what = "dropped by " + r.Dropped
	case r.Malformed:
		what = "kept, not " + string(t.format)
	}
	where := "-"
	if r.First > 0 {
		where = fmt.Sprint(r.First)
		if r.Last > r.First {
			where = fmt.Sprintf("%d-%d", r.First, r.Last)
		}
	}
	head := fmt.Sprintf("%-9s %-17s ", where, what)
	if r.Time != nil {
		head += r.Time.Format("2006-01-02T15:04:05.000Z") + " "
	}
	for i, line := range strings.Split(r.Text, "\n") {
		if i > 0 {
			head = strings.Repeat(" ", 28)
		}
		fmt.Fprintf(t.out, "%s%s\n", head, printable(line))
	}
	for _, f := range fields {
		fmt.Fprintf(t.out, "%28s%s = %s\n", "", f.Name, printable(f.Value))
	}
	return nil
}

// printable keeps what a log holds from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// sum prints the counts at the end.
func (t *trial) sum(c shape.Counts) error {
	type count struct {
		n    uint64
		name string
	}
	all := []count{{t.kept, "kept"}, {c.Filtered, "dropped by rule"}, {c.Sampled, "dropped by sample"}, {c.Over, "dropped by budget"},
		{c.Joined, "lines joined"}, {c.Cut, "cut at the bounds"}, {c.Parsed, "parsed"}, {c.Unparsed, "not parsed"}, {c.Untimed, "without their time"},
		{c.Redacted, "redacted"}, {t.malformed, "malformed"}}
	if t.json {
		counts := map[string]uint64{"lines": uint64(t.lines)}
		for _, k := range all {
			counts[strings.ReplaceAll(k.name, " ", "_")] = k.n
		}
		return json.NewEncoder(t.out).Encode(map[string]any{"counts": counts})
	}
	text := fmt.Sprintf("%d lines: %d records kept", t.lines, t.kept)
	for _, k := range all[1:] {
		if k.n > 0 {
			text += fmt.Sprintf(", %d %s", k.n, k.name)
		}
	}
	if t.untouched {
		text += "; no rule and no label applies"
	}
	_, err := fmt.Fprintln(t.out, "\n"+text)
	return err
}
