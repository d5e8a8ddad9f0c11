package config

import (
	"fmt"
	"reflect"
	"strings"
)

// field is one key of a section.
type field struct {
	key       string
	doc       string // tag doc:"..."
	omitEmpty bool
	index     []int
}

// fieldsOf lists the keys of a struct in its order, those of inline structs in their place.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case key == "-" || !f.IsExported() && !f.Anonymous:
		case options == "inline":
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
		default:
			if key == "" {
				key = strings.ToLower(f.Name)
			}
			out = append(out, field{key: key, doc: f.Tag.Get("doc"), omitEmpty: options == "omitempty", index: []int{i}})
		}
	}
	return out
}

func join(key, sub string) string {
	if key == "" {
		return sub
	}
	return key + "." + sub
}

func index(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
