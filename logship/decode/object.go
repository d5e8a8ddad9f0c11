package decode

import "encoding/json"

// Value is one value of a JSON object: a string without its quotes and escapes, anything else as it is written.
type Value struct {
	Text   []byte
	String bool
}

// Object hands each member of the JSON object in raw to member, in their order, until that answers false. ok is false
// when raw is not one whole object; members may have been handed over by then. Keys and strings alias raw or arena.
func Object(raw []byte, arena *Arena, member func(key []byte, v Value) bool) (ok bool) {
	s := scanner{b: raw}
	s.space()
	if !s.take('{') {
		return false
	}
	for first := true; ; first = false {
		s.space()
		if s.take('}') {
			break
		}
		if !first && !s.take(',') {
			return false
		}
		s.space()
		key, ok := s.text(arena)
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		v, ok := s.value(arena)
		if !ok {
			return false
		}
		if !member(key, v) {
			return true
		}
	}
	s.space()
	return s.i == len(s.b)
}

func (s *scanner) value(arena *Arena) (Value, bool) {
	if s.i < len(s.b) && s.b[s.i] == '"' {
		text, ok := s.text(arena)
		return Value{text, true}, ok
	}
	from := s.i
	if !s.skip(0) {
		return Value{}, false
	}
	v := s.b[from:s.i:s.i]
	return Value{Text: v}, json.Valid(v) // skip looks at numbers and words less strictly
}
