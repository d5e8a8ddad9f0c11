package shape

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

// Rule is one entry of logship.rules: what is done with the lines of the logs that it matches. Several rules may match
// one log; they are taken in their order and then its container's labels. Of a thing that can be said once the last word
// counts, but of budgets the smallest; filters and redactions add up.
type Rule struct {
	Match     Match         `yaml:"match" doc:"which logs; all that is given must fit, nothing given is every log"`
	Multiline string        `yaml:"multiline" doc:"lines that are one record: go, java, python, or a regular expression for the first line of each, such as ^\\d{4}-"`
	MaxLines  int           `yaml:"max_lines" doc:"multiline: a record has at most this many lines; 0: 500"`
	MaxBytes  int           `yaml:"max_bytes" doc:"multiline: and at most this many bytes; 0: 262144"`
	Timeout   time.Duration `yaml:"timeout" doc:"multiline: a record is complete when nothing was added for so long; 0: 1s"`
	Parse     string        `yaml:"parse" doc:"fields from the line: json, logfmt, or a regular expression with named groups (?P<name>...)"`
	Message   string        `yaml:"message" doc:"parse: the field that takes the line's place"`
	Time      string        `yaml:"time" doc:"parse: the field with the record's time"`
	Format    string        `yaml:"time_format" doc:"time: rfc3339, unix, unix_ms, unix_us, unix_ns or Go's reference time written so; empty: RFC 3339 or a number"`
	Keep      []Filter      `yaml:"keep" doc:"only records that one of these matches are delivered"`
	Drop      []Filter      `yaml:"drop" doc:"records that one of these matches are not delivered"`
	Redact    []Redact      `yaml:"redact" doc:"what is replaced, in the line and in every field"`
	Sample    int           `yaml:"sample" doc:"one record of so many is delivered; 0 and 1: all"`
	Rate      string        `yaml:"rate" doc:"at most so many records of each log, such as 1000/s, 500/m or 20/h, by their own times"`
	Sinks     []string      `yaml:"sinks" doc:"names of the sinks that these logs go to; none: all"`
}

// Match says which logs a rule is for. In all but label's key, * stands for any characters and ? for one.
type Match struct {
	Label     string `yaml:"label" doc:"KEY or KEY=VALUE of the container"`
	Name      string `yaml:"name" doc:"of the container, or of the journal's unit"`
	Image     string `yaml:"image" doc:"of the container"`
	Namespace string `yaml:"namespace" doc:"Kubernetes namespace"`
	Path      string `yaml:"path" doc:"of a file, as the container knows it; empty fits a container's own output too"`
}

// Filter is a pattern for the line or one field.
type Filter struct {
	Field string `yaml:"field" doc:"of those that parse has found; empty: the line"`
	Match string `yaml:"match" doc:"regular expression"`
}

// Redact replaces what a pattern matches.
type Redact struct {
	Match string `yaml:"match" doc:"regular expression"`
	With  string `yaml:"with" doc:"in its place; $1 is the first group; empty: [redacted]"`
}

// The bounds of a joined record unless a rule says otherwise.
const (
	defaultLines   = 500
	defaultBytes   = 256 << 10
	defaultTimeout = time.Second
	mostBytes      = 1 << 20 // a reader's buffers are made for lines of this size
)

// Set is the rules of the configuration, compiled. It is never modified.
type Set struct{ rules []compiled }

type compiled struct {
	match Match
	Chain
}

// Compile checks and compiles the rules. The error names every problem by its key below rules, such as [0].multiline.
func Compile(rules []Rule) (*Set, error) {
	set := &Set{}
	var errs []error
	for i, r := range rules {
		c, err := r.compile(func(key string) string { return fmt.Sprintf("[%d].%s", i, key) }, true)
		errs = append(errs, err)
		if r.Match.Label != "" && strings.HasPrefix(r.Match.Label, "=") {
			errs = append(errs, expected(fmt.Sprintf("[%d].match.label", i), r.Match.Label, "KEY or KEY=VALUE"))
		}
		set.rules = append(set.rules, compiled{r.Match, c})
	}
	return set, errors.Join(errs...)
}

// Problem is one value that cannot be. Key is where it stands.
type Problem struct{ Key, Got, Expected string }

func (p *Problem) Error() string {
	return fmt.Sprintf("%s: %q is not valid, expected %s", p.Key, p.Got, p.Expected)
}

func expected(key, got, what string) error { return &Problem{key, got, what} }

// For gives what the rules and the labels of a log's container make of its lines; nil when nothing is said of it. An
// error names the label that could not be understood; the chain is then that of everything else.
func (s *Set) For(o *sink.Origin) (*Chain, error) {
	var all *Chain
	add := func(c Chain) {
		if all == nil {
			all = &Chain{}
		}
		all.merge(c)
	}
	if s != nil {
		for _, r := range s.rules {
			if r.match.fits(o) {
				add(r.Chain)
			}
		}
	}
	r, said := fromLabels(o.Labels)
	if !said.any {
		return all, said.err
	}
	c, err := r.compile(func(key string) string { return "label " + labelOf(key) }, false)
	add(c)
	return all, errors.Join(said.err, err)
}

func (c *Chain) merge(o Chain) {
	if o.join != nil {
		c.join = o.join
	}
	if o.parse != nil {
		c.parse = o.parse
	}
	if o.message != "" {
		c.message = o.message
	}
	if o.stamp != nil {
		c.stamp = o.stamp
	}
	if o.sample != 0 {
		c.sample = o.sample
	}
	if o.budget != nil && (c.budget == nil || o.budget.less(c.budget)) {
		c.budget = o.budget
	}
	if o.sinks != nil {
		c.sinks = o.sinks
	}
	c.filters = slices.Concat(c.filters, o.filters)
	c.redacts = slices.Concat(c.redacts, o.redacts)
}

// compile gives the rule's own chain; alone tells that nothing it needs may come from another rule. What is wrong is left
// out of the chain and named in the error.
func (r Rule) compile(name func(key string) string, alone bool) (c Chain, err error) {
	var errs []error
	bad := func(key, got, what string) { errs = append(errs, expected(name(key), got, what)) }
	pattern := func(key, text string) *regexp.Regexp {
		p, err := regexp.Compile(text)
		if err != nil {
			bad(key, text, "a regular expression ("+strings.TrimPrefix(err.Error(), "error parsing regexp: ")+")")
			return nil
		}
		return p
	}
	c.join = r.joining(bad, pattern)
	c.parse = r.parsing(bad, pattern)
	if alone && r.Parse == "" && (r.Message != "" || r.Time != "") {
		bad("parse", "", "json, logfmt or a regular expression, because message or time name a field")
	}
	c.message = r.Message
	if r.Time != "" {
		c.stamp = &stamp{r.Time, r.Format}
	}
	if r.Format != "" {
		if r.Time == "" {
			bad("time", "", "the field with the time, because there is a time_format")
		} else if !formatKnown(r.Format) {
			bad("time_format", r.Format, "rfc3339, unix, unix_ms, unix_us, unix_ns or a layout of Go's reference time such as 2006-01-02 15:04:05")
		}
	}
	filters := func(key string, list []Filter, keep bool) {
		for i, f := range list {
			if p := pattern(fmt.Sprintf("%s[%d].match", key, i), f.Match); p != nil {
				c.filters = append(c.filters, filter{keep, f.Field, p})
			}
			if f.Match == "" {
				bad(fmt.Sprintf("%s[%d].match", key, i), "", "a regular expression")
			}
		}
	}
	filters("drop", r.Drop, false)
	filters("keep", r.Keep, true)
	for i, x := range r.Redact {
		key := fmt.Sprintf("redact[%d].match", i)
		p := pattern(key, x.Match)
		if p == nil {
			continue
		}
		if p.MatchString("") {
			bad(key, x.Match, "a regular expression that does not match nothing")
			continue
		}
		with := x.With
		if with == "" {
			with = "[redacted]"
		}
		c.redacts = append(c.redacts, redact{p, []byte(with)})
	}
	if c.sample = r.Sample; r.Sample < 0 {
		bad("sample", strconv.Itoa(r.Sample), "a number of records of which one is delivered")
	}
	if r.Rate != "" {
		b, err := parseBudget(r.Rate)
		if err != nil {
			bad("rate", r.Rate, "a number of records and /s, /m or /h, such as 1000/s")
		}
		c.budget = b
	}
	if len(r.Sinks) > 0 {
		c.sinks = r.Sinks
	}
	return c, errors.Join(errs...)
}

func (r Rule) joining(bad func(key, got, what string), pattern func(key, text string) *regexp.Regexp) *join {
	var j join
	if known, ok := presets[r.Multiline]; ok {
		j = known
	} else if r.Multiline != "" {
		// A word is more likely a misspelt name than a pattern: it would make a record of each line that has it anywhere.
		if regexp.QuoteMeta(r.Multiline) == r.Multiline {
			bad("multiline", r.Multiline, presetNames+", or a pattern for each record's first line, such as ^"+r.Multiline)
			return nil
		}
		p := pattern("multiline", r.Multiline)
		if p == nil {
			return nil
		}
		j = startsWith(p)
	}
	j.maxLines, j.maxBytes, j.timeout = r.MaxLines, r.MaxBytes, r.Timeout
	if j.maxLines == 0 {
		j.maxLines = defaultLines
	}
	if j.maxBytes == 0 {
		j.maxBytes = defaultBytes
	}
	if j.timeout == 0 {
		j.timeout = defaultTimeout
	}
	if j.maxLines < 2 || j.maxLines > 100_000 {
		bad("max_lines", strconv.Itoa(r.MaxLines), "2 to 100000")
	}
	if j.maxBytes < 1024 || j.maxBytes > mostBytes {
		bad("max_bytes", strconv.Itoa(r.MaxBytes), fmt.Sprintf("1024 to %d", mostBytes))
	}
	if j.timeout < 10*time.Millisecond || j.timeout > time.Minute {
		bad("timeout", r.Timeout.String(), "10ms to 1m")
	}
	if r.Multiline == "" {
		if r.MaxLines != 0 || r.MaxBytes != 0 || r.Timeout != 0 {
			bad("multiline", "", presetNames+" or a pattern, because there are bounds for it")
		}
		return nil
	}
	return &j
}

func (r Rule) parsing(bad func(key, got, what string), pattern func(key, text string) *regexp.Regexp) parser {
	switch r.Parse {
	case "":
		return nil
	case "json":
		return parseJSON
	case "logfmt":
		return parseLogfmt
	}
	p := pattern("parse", r.Parse)
	if p == nil {
		return nil
	}
	if !slices.ContainsFunc(p.SubexpNames(), func(n string) bool { return n != "" }) {
		bad("parse", r.Parse, "json, logfmt, or a regular expression with named groups (?P<name>...)")
		return nil
	}
	return parseGroups(p)
}

// formatKnown tells whether a time written in the format can be read back.
func formatKnown(f string) bool {
	if f == "rfc3339" || numbers[f] != 0 {
		return true
	}
	t := time.Date(2027, 11, 23, 21, 34, 56, 0, time.UTC)
	back, err := time.Parse(f, t.Format(f))
	return err == nil && t.Format(f) != f && !back.IsZero()
}

func (m Match) fits(o *sink.Origin) bool {
	if m.Label != "" {
		key, want, valued := strings.Cut(m.Label, "=")
		have, ok := o.Labels[key]
		if !ok || valued && !glob(want, have) {
			return false
		}
	}
	is := func(pattern, text string) bool { return pattern == "" || text != "" && glob(pattern, text) }
	return is(m.Name, o.Name) && is(m.Image, o.Image) && is(m.Namespace, o.Namespace) && is(m.Path, o.Path)
}

// glob matches * (any characters, / too) and ? (one byte).
func glob(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
