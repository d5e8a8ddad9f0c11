package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder walks the file's nodes and the caller's types side by side.
type decoder struct {
	file     *File
	problems Problems
}

func (d *decoder) note(line int, key, message string) {
	d.problems = append(d.problems, Problem{File: d.file.name, Line: line, Key: key, Message: message})
}

func (d *decoder) into(n *yaml.Node, into any) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: decode into %T, which is no pointer to a struct", into))
	}
	d.value(n, v.Elem(), "")
}

var durationType = reflect.TypeFor[time.Duration]()

// value decodes n into v, which holds the default. Null leaves sections, lists and pointers as they are.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.scalar(n, key, wants(v.Type()), func(text string) error { return u.UnmarshalText([]byte(text)) })
		return
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
		if isNull(n) && n.Style&yaml.TaggedStyle == 0 {
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(fresh(v.Type().Elem()).Addr())
		d.value(n, v.Elem(), key)
	case reflect.Struct:
		d.section(n, v, key)
	case reflect.Slice:
		d.list(n, v, key)
	case reflect.Map:
		d.mapping(n, v, key)
	default:
		d.scalar(n, key, wants(v.Type()), func(text string) error { return setScalar(v, text) })
	}
}

// fresh makes a settable value of type t with its own defaults.
func fresh(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	if e, ok := p.Interface().(interface{ SetDefaults() }); ok {
		e.SetDefaults()
	}
	return p.Elem()
}

func (d *decoder) section(n *yaml.Node, v reflect.Value, key string) {
	fields := fieldsOf(v.Type())
	d.entries(n, key, "keys and values", func(k *yaml.Node, at string) *reflect.Value {
		for _, f := range fields {
			if f.key == k.Value {
				field := v.FieldByIndex(f.index)
				return &field
			}
		}
		d.note(k.Line, at, unknownKey(k.Value, fields))
		return nil
	}, func(*yaml.Node, reflect.Value) {})
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	out := reflect.MakeMap(v.Type())
	d.entries(n, key, "keys and values", func(*yaml.Node, string) *reflect.Value {
		elem := fresh(v.Type().Elem())
		return &elem
	}, func(k *yaml.Node, elem reflect.Value) {
		name := reflect.New(v.Type().Key()).Elem()
		if name.Kind() != reflect.String {
			panic(fmt.Sprintf("config: map key of type %s at %s", name.Type(), key))
		}
		name.SetString(k.Value)
		out.SetMapIndex(name, elem)
	})
	if out.Len() == 0 { // {} and nothing are one, so that what is printed decodes to the same
		out = reflect.Zero(v.Type())
	}
	v.Set(out)
}

// entries decodes each pair of a mapping into the place that slot answers (nil skips it), then calls done.
func (d *decoder) entries(n *yaml.Node, key, wants string, slot func(*yaml.Node, string) *reflect.Value, done func(*yaml.Node, reflect.Value)) {
	if !d.isKind(n, yaml.MappingNode, key, wants) {
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Style&yaml.TaggedStyle != 0 || k.Tag == "!!merge" {
			d.note(k.Line, key, "expected a plain key, found "+describe(k))
			continue
		}
		at := join(key, k.Value)
		if line, twice := first[k.Value]; twice {
			d.note(k.Line, at, fmt.Sprintf("written twice, first on line %d", line))
			continue
		}
		first[k.Value] = k.Line
		if place := slot(k, at); place != nil {
			d.value(val, *place, at)
			done(k, *place)
		}
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key string) {
	if !d.isKind(n, yaml.SequenceNode, key, "a list") {
		return
	}
	out := reflect.Zero(v.Type()) // [] is nil, as for maps
	for i, item := range n.Content {
		elem := fresh(v.Type().Elem())
		d.value(item, elem, index(key, i))
		out = reflect.Append(out, elem)
	}
	v.Set(out)
}

// isKind notes a problem when n is of another kind, or has an anchor's trappings.
func (d *decoder) isKind(n *yaml.Node, want yaml.Kind, key, wants string) bool {
	if n.Kind == want && n.Style&yaml.TaggedStyle == 0 {
		return true
	}
	d.note(n.Line, key, fmt.Sprintf("expected %s, found %s", wants, describe(n)))
	return false
}

// scalar resolves references in n and hands the text to set.
func (d *decoder) scalar(n *yaml.Node, key, wants string, set func(string) error) {
	if !d.isKind(n, yaml.ScalarNode, key, wants) {
		return
	}
	text, refs, err := resolve(n.Value)
	if err != nil {
		d.note(n.Line, key, err.Error())
		return
	}
	if len(refs) > 0 {
		d.file.refs[key] = n.Value
		d.file.secrets = append(d.file.secrets, refs...)
	}
	switch {
	case isNull(n):
		err = errWrongType
	case n.Tag == "!!bool" && wants == wantsText: // yes or no, which a person meant as one
		err = errWrongType
	default:
		err = set(text)
	}
	switch {
	case err == nil:
	case len(refs) > 0: // neither the text nor what a parser said of it: that would show the secret
		d.note(n.Line, key, fmt.Sprintf("expected %s, found something else in %s", wants, n.Value))
	case errors.Is(err, errWrongType), wants != wantsText: // then wants has said what a parser would
		d.note(n.Line, key, fmt.Sprintf("expected %s, found %s", wants, describe(n)))
	default:
		d.note(n.Line, key, fmt.Sprintf("expected %s, found %s: %s", wants, describe(n), oneLine(err)))
	}
}

var errWrongType = errors.New("wrong type")

// setScalar stores text in v, which is of one of Go's plain kinds.
func setScalar(v reflect.Value, text string) error {
	number := strings.ReplaceAll(text, "_", "") // as YAML 1.1 and Go have it: 1_000
	bits := 0
	if v.CanInt() || v.CanUint() || v.CanFloat() {
		bits = v.Type().Bits()
	}
	switch {
	case v.Type() == durationType:
		dur, err := time.ParseDuration(text)
		if err != nil {
			return errWrongType
		}
		v.SetInt(int64(dur))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return errWrongType
		}
		v.SetBool(text == "true")
	case v.CanInt():
		i, err := strconv.ParseInt(number, 0, bits)
		if err != nil {
			return errWrongType
		}
		v.SetInt(i)
	case v.CanUint():
		u, err := strconv.ParseUint(number, 0, bits)
		if err != nil {
			return errWrongType
		}
		v.SetUint(u)
	case v.CanFloat():
		f, err := strconv.ParseFloat(number, bits)
		if err != nil || f-f != 0 { // neither infinite nor not-a-number is a setting
			return errWrongType
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("config: no text can be decoded into %s", v.Type()))
	}
	return nil
}
