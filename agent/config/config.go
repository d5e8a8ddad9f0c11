// Package config reads the agent's one YAML file strictly: it finds every problem at once and says for each the file,
// the line, the key and what was expected. It also prints what is in force, documented, as a file that reads the same.
//
//	text ── Decode ──> the caller's struct ── Validate ──> problems ── File.Locate ──> fairlead.yaml:12: overlay.vni: ...
//	                        └── Print, PrintJSON, Diff
//
// Any value may be, or contain, a secret from elsewhere: ${env:NAME} or ${file:/path}; $${ is a plain ${. The package
// owns nothing on the host and knows no section of the file: each part brings its own struct. After a crash the file
// is read again.
package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// File is one decoded file. It remembers where each key stands and which values were references, so that problems
// can be located and secrets are never printed. It is read-only after Decode; the zero value is a file that does not
// exist, as for an agent without configuration.
type File struct {
	name    string
	root    *yaml.Node        // the top mapping; nil when the file says nothing
	refs    map[string]string // by key path: the text with its references, as it stands in the file
	secrets []secret
	unread  map[string]bool // keys whose value Decode could not read
}

// Name is the file's name as Decode got it.
func (f *File) Name() string { return f.name }

// Decode reads text into the struct that into points to, which holds the defaults on entry. name is the file's name
// for messages; relative paths in the file are the caller's business.
//
// Keys are the yaml tags ("-" skips a field, ",inline" lifts a struct's keys up), else the field names in lower case.
// Fields may be structs, slices, maps, pointers, strings, bools, numbers, time.Duration and whatever implements
// encoding.TextUnmarshaler with TextMarshaler. A list or map in the file replaces the default. An element of a list
// or map whose pointer has a method SetDefaults() is given its defaults first. A section without content keeps its
// defaults. YAML's anchors, aliases, merge keys and tags are refused: a file of settings is read by people.
//
// The error is of type Problems. What could be decoded is in into even then. Decode reads the files that the text
// refers to, so it may block. It panics when into holds a type that no file can fill, which is a fault of the build.
func Decode(name string, text []byte, into any) (*File, error) {
	f := &File{name: name, refs: map[string]string{}}
	d := decoder{file: f}
	if d.parse(text); f.root != nil {
		d.into(f.root, into)
	}
	if len(d.problems) == 0 {
		return f, nil
	}
	f.unread = map[string]bool{}
	for _, p := range d.problems {
		f.unread[p.Key] = true
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return f, d.problems
}

// parse sets file.root, or notes why it cannot.
func (d *decoder) parse(text []byte) {
	if !utf8.Valid(text) {
		line := 1 + bytes.Count(text[:firstInvalid(text)], []byte("\n"))
		d.note(line, "", "not text in UTF-8")
		return
	}
	docs, err := documents(text)
	if err != nil {
		d.note(syntaxLine(text), "", "not valid YAML: "+plainWords(err, text))
		return
	}
	if len(docs) > 1 {
		d.note(docs[1].Line, "", "a second document begins here; the file is one document, remove the line ---")
	}
	if len(docs) == 0 {
		return
	}
	switch root := docs[0].Content[0]; {
	case root.Kind == yaml.MappingNode:
		d.file.root = root
	case !isNull(root):
		d.note(root.Line, "", "expected keys and values, found "+describe(root))
	}
}

func firstInvalid(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// Problem is one thing wrong with a file. Line is 0 when it is not known, Key is empty for the file as a whole.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is everything wrong with a file; its text has one line for each.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a Problem.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}
