package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const wantsText = "text"

// wants says in words what a value of type t looks like.
func wants(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration such as 10m or 1h30m"
	case reflect.TypeFor[netip.Prefix]():
		return "a network such as 10.42.0.0/16"
	case reflect.TypeFor[netip.Addr]():
		return "an IP address such as 192.0.2.11"
	case reflect.TypeFor[netip.AddrPort]():
		return "an address with port such as 127.0.0.1:9478"
	}
	switch v := reflect.Zero(t); {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case v.CanInt() && t.Bits() < 64:
		top := uint64(1) << (t.Bits() - 1)
		return fmt.Sprintf("a whole number from -%d to %d", top, top-1)
	case v.CanInt():
		return "a whole number"
	case v.CanUint() && t.Bits() < 64:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<t.Bits()-1)
	case v.CanUint():
		return "a whole number that is not negative"
	case v.CanFloat():
		return "a number"
	}
	return wantsText
}

// describe says in words what stands in the file.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode, n.Tag == "!!merge":
		return "a YAML alias or merge key, which this file does not use; write the value out"
	case n.Style&yaml.TaggedStyle != 0:
		return "the YAML tag " + n.Tag + ", which this file does not use"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return strconv.Quote(shorten(n.Value))
	}
	return shorten(n.Value)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func shorten(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// unknownKey names the key that was probably meant and those that exist.
func unknownKey(key string, fields []field) string {
	var known []string
	nearest, best := "", 1+(len(key)+2)/3
	for _, f := range fields {
		known = append(known, f.key)
		if d := distance(strings.ToLower(key), f.key); d < best {
			nearest, best = f.key, d
		}
	}
	message := "unknown key"
	if nearest != "" {
		message += fmt.Sprintf(", did you mean %s?", nearest)
	}
	if len(known) == 0 {
		return message + " (this section has no keys)"
	}
	return message + " (known here: " + strings.Join(known, ", ") + ")"
}

// distance is the Levenshtein distance, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
