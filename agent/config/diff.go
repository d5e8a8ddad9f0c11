package config

import (
	"go.yaml.in/yaml/v3"
)

// Diff gives the key paths whose values differ between two configurations of one type, in the order of the struct. A
// list or map with other members is named as a whole. Secrets are compared by value, so a changed one counts.
func Diff(before, after any) []string {
	return diff(tree(before, nil), tree(after, nil), "")
}

func diff(a, b *yaml.Node, key string) []string {
	if a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return []string{key}
	}
	var out []string
	for i := range a.Content {
		switch {
		case a.Kind == yaml.SequenceNode:
			out = append(out, diff(a.Content[i], b.Content[i], index(key, i))...)
		case i%2 == 1:
			out = append(out, diff(a.Content[i], b.Content[i], join(key, a.Content[i-1].Value))...)
		case a.Content[i].Value != b.Content[i].Value: // another key: no member of either can be paired
			return []string{key}
		}
	}
	return out
}
