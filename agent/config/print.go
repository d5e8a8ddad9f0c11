package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Print writes the configuration v (a struct or a pointer to one) as YAML that Decode reads back to the same, in the
// order of the struct, with each key's doc tag as a comment. A value that was a reference in f is printed as that
// reference, never as the secret. f may be nil when there was no file.
func Print(w io.Writer, v any, f *File) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(tree(v, f)); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return enc.Close()
}

// PrintJSON writes the same as Print as JSON, without comments.
func PrintJSON(w io.Writer, v any, f *File) error {
	var b, pretty bytes.Buffer
	if err := writeJSON(&b, tree(v, f)); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	if err := json.Indent(&pretty, b.Bytes(), "", "  "); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	pretty.WriteByte('\n')
	_, err := pretty.WriteTo(w)
	return err
}

// printer turns values into nodes.
type printer struct{ refs map[string]string }

func tree(v any, f *File) *yaml.Node {
	var p printer
	if f != nil {
		p.refs = f.refs
	}
	return p.node(reflect.Indirect(reflect.ValueOf(v)), "")
}

func (p printer) node(v reflect.Value, key string) *yaml.Node {
	if raw, ok := p.refs[key]; ok {
		return scalarNode("!!str", raw)
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		text, err := m.MarshalText()
		if err != nil {
			text = fmt.Appendf(nil, "%v", v.Interface())
		}
		return scalarNode("!!str", escape(string(text)))
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return scalarNode("!!null", "null")
		}
		return p.node(v.Elem(), key)
	case reflect.Struct:
		return p.section(v, key)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			item := p.node(v.Index(i), index(key, i))
			if i > 0 {
				uncomment(item) // the first element explains the others
			}
			n.Content = append(n.Content, item)
		}
		return flowWhenEmpty(n)
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			n.Content = append(n.Content, scalarNode("!!str", k.String()), p.node(v.MapIndex(k), join(key, k.String())))
		}
		return flowWhenEmpty(n)
	}
	return plainNode(v)
}

func (p printer) section(v reflect.Value, key string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fieldsOf(v.Type()) {
		val := v.FieldByIndex(f.index)
		if f.omitEmpty && val.IsZero() {
			continue
		}
		k, item := scalarNode("!!str", f.key), p.node(val, join(key, f.key))
		comment(k, item, f.doc, val.Type())
		n.Content = append(n.Content, k, item)
	}
	return flowWhenEmpty(n)
}

// comment puts doc behind a short value and above all else. An empty list of sections lists the keys of an element,
// because nothing else would show them.
func comment(k, item *yaml.Node, doc string, t reflect.Type) {
	if item.Kind == yaml.ScalarNode && len(k.Value)+len(item.Value)+len(doc) < 100 && !strings.Contains(item.Value, "\n") {
		item.LineComment = doc
		return
	}
	lines := wrap(doc, 100)
	if item.Kind == yaml.SequenceNode && len(item.Content) == 0 && t.Elem().Kind() == reflect.Struct && !isText(t.Elem()) {
		for _, f := range fieldsOf(t.Elem()) {
			lines = append(lines, strings.TrimSpace("  "+f.key+": "+f.doc))
		}
	}
	k.HeadComment = strings.Join(lines, "\n")
}

func isText(t reflect.Type) bool { return t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) }

func uncomment(n *yaml.Node) {
	n.HeadComment, n.LineComment = "", ""
	for _, c := range n.Content {
		uncomment(c)
	}
}

func wrap(text string, width int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}

func flowWhenEmpty(n *yaml.Node) *yaml.Node {
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

func scalarNode(tag, value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
	if strings.ContainsFunc(value, unicode.IsControl) {
		n.Style = yaml.DoubleQuotedStyle // as a | block a leading tab would not be read back; found by FuzzDecode
	}
	return n
}

func plainNode(v reflect.Value) *yaml.Node {
	switch {
	case v.Type() == durationType:
		return scalarNode("!!str", shortDuration(v.Interface().(time.Duration)))
	case v.Kind() == reflect.String:
		return scalarNode("!!str", escape(v.String()))
	case v.Kind() == reflect.Bool:
		return scalarNode("!!bool", strconv.FormatBool(v.Bool()))
	case v.CanInt():
		return scalarNode("!!int", strconv.FormatInt(v.Int(), 10))
	case v.CanUint():
		return scalarNode("!!int", strconv.FormatUint(v.Uint(), 10))
	case v.CanFloat():
		text := strconv.FormatFloat(v.Float(), 'g', -1, 64)
		if strings.Trim(text, "-0123456789") == "" {
			return scalarNode("!!int", text) // the encoder would write !!float 2
		}
		return scalarNode("!!float", text)
	}
	panic(fmt.Sprintf("config: no way to print %s", v.Type()))
}

// shortDuration writes 10m where time.Duration has 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	brackets := "[]"
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag != "!!str" {
			b.WriteString(n.Value)
			return nil
		}
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		return enc.Encode(n.Value)
	case yaml.MappingNode:
		brackets = "{}"
	}
	b.WriteByte(brackets[0])
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 1:
			b.WriteByte(':')
		case i > 0:
			b.WriteByte(',')
		}
		if err := writeJSON(b, c); err != nil {
			return err
		}
	}
	b.WriteByte(brackets[1])
	return nil
}
