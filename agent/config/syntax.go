package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// documents parses every document of text.
func documents(text []byte) ([]*yaml.Node, error) {
	var docs []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		doc := new(yaml.Node)
		switch err := dec.Decode(doc); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return docs, err
		}
		docs = append(docs, doc)
	}
}

// syntaxLine finds the line with which text stops being YAML. The parser itself often names the line where the
// surrounding block began, or none; so we look for the longest beginning that does parse. That costs one parse a
// line, which is nothing for a file that people write; of a very long one only the last thousand lines are tried.
func syntaxLine(text []byte) int {
	lines := bytes.SplitAfter(bytes.TrimRight(text, "\n"), []byte("\n"))
	end := len(text)
	for n := len(lines); n > max(1, len(lines)-1000); n-- {
		end = min(end, len(bytes.Join(lines[:n-1], nil)))
		if _, err := documents(text[:end]); err == nil {
			return n
		}
	}
	return 1
}

// plainWords says what the parser's message means to somebody who writes a configuration file.
func plainWords(err error, text []byte) string {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, rest, ok := strings.Cut(said, ": "); ok && strings.HasPrefix(said, "line ") {
		said = rest
	}
	for _, t := range []struct{ parser, plain string }{
		{"mapping values are not allowed", `a second ": " in one line, or a line indented too far; quote the value or mend the indentation`},
		{"cannot start any token", "a tab, or a value that begins with @, ` or %; indent with spaces and quote such a value"},
		{"found a tab", "a tab; indent with spaces"},
		{"did not find expected key", "this line does not line up with the keys above it; mend the indentation"},
		{"did not find expected '-'", "this line does not line up with the list above it; mend the indentation or begin it with -"},
		{"did not find expected ',' or '}'", "a { that is not closed, or a missing comma in it; inside { } quote values with ${...}"},
		{"did not find expected ',' or ']'", "a [ that is not closed, or a missing comma in it; inside [ ] quote values with ${...}"},
		{"unexpected end of stream", "a quotation mark that is not closed"},
		{"unknown escape character", `a backslash before a character that needs none; use 'single quotes' to take it as it is`},
		{"control characters", "a control character"},
		{"unknown anchor", "an alias (*name); write the value out, or quote it when it begins with *"},
	} {
		if strings.Contains(said, t.parser) {
			return fmt.Sprintf("%s (the parser says: %s)", t.plain, said)
		}
	}
	return said
}
